// Carries one request's generations (n choices, or several prompts) from the Service to the client, in
// whatever words an AnswerFormat puts them. Streams send no head before the first event, so that what fails
// before the first token is answered with its proper status. When the client goes away, every generation is
// cancelled.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/api_error.h"
#include "api/http.h"
#include "serving/service.h"

namespace shoal::api {

struct Choice {
  std::string text;                        // all of it
  std::vector<serving::TokenText> tokens;  // when logprobs were asked for
  std::optional<serving::FinishReason> finish_reason;
  std::optional<std::string> stop_string;
  serving::Usage usage;
};

// A dialect's words for an answer. One object per request; calls come in the order of the events.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual Response error(const ApiError& error) = 0;
  // The whole answer at once.
  virtual Response whole(const std::vector<Choice>& choices, const serving::Usage& total) = 0;
  // Pieces of a stream, each with its framing ("data: …\n\n"); empty pieces are not sent.
  virtual std::string stream_content_type() { return "text/event-stream"; }
  virtual std::string stream_start(size_t choice_count) = 0;
  virtual std::string stream_text(size_t choice, std::string_view text,
                                  const std::vector<serving::TokenText>& tokens) = 0;
  virtual std::string stream_choice_end(size_t choice, const Choice& whole) = 0;
  virtual std::string stream_end(const serving::Usage& total) = 0;
  virtual std::string stream_error(const ApiError& error) = 0;
};

struct GenerationPlan {
  std::vector<serving::GenerateRequest> requests;  // one per choice
  size_t choices_per_prompt = 1;                   // prompts of usage are counted once per so many choices
  bool stream = false;
};

void run_generation(serving::Service& service, GenerationPlan plan, std::unique_ptr<AnswerFormat> format,
                    std::shared_ptr<Exchange> exchange);

}  // namespace shoal::api
