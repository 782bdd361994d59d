// For tests: what a client of a generation heard, and that it heard exactly one end.
#pragma once

#include <gtest/gtest.h>
#include <optional>
#include <string>
#include <vector>

#include "serving/service.h"

namespace shoal::serving {

class RecordingListener final : public GenerationListener {
 public:
  ~RecordingListener() override { EXPECT_LE(ends, 1); }
  void on_text(std::string_view piece, const std::vector<TokenText>& more) override {
    EXPECT_EQ(ends, 0) << "text after the end";
    text += piece;
    tokens.insert(tokens.end(), more.begin(), more.end());
    if (on_piece) on_piece();
  }
  void on_finished(FinishReason why, std::optional<std::string> stop_string, const Usage& counted) override {
    ends += 1;
    reason = why;
    stop = std::move(stop_string);
    usage = counted;
  }
  void on_error(const Error& what) override {
    ends += 1;
    error = what;
  }
  bool ended() const { return ends > 0; }

  std::string text;
  std::vector<TokenText> tokens;
  int ends = 0;
  std::optional<FinishReason> reason;
  std::optional<std::string> stop;
  Usage usage;
  std::optional<Error> error;
  std::function<void()> on_piece;
};

}  // namespace shoal::serving
