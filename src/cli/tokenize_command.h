// `shoal tokenize`, `detokenize` and `render`: a model's tokenizer and chat template by themselves, without a
// cluster and without its weights being read.
#pragma once

#include <string>

namespace shoal::cli {

struct TokenizeOptions {
  std::string path;       // a .gguf file or a model directory
  std::string text_file;  // UTF-8
  bool add_special_tokens = true;
  bool json = false;
};

struct DetokenizeOptions {
  std::string path;
  std::string tokens;  // "1,2,3"
  bool skip_special_tokens = false;
  bool json = false;
};

struct RenderOptions {
  std::string path;
  std::string messages_file;  // {"messages": […], "tools": …, "add_generation_prompt": …, "extra": {…}}
  bool json = false;
};

// Each prints {"ids":[…]}, {"text":…} and {"text":…} (without `json`: ids in a line, the bare text), and
// returns the exit code; on failure one line went to stderr.
int run_tokenize(const TokenizeOptions& options);
int run_detokenize(const DetokenizeOptions& options);
int run_render(const RenderOptions& options);

}  // namespace shoal::cli
