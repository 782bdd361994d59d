// The adapters between OpenAI's JSON and generate requests, without sockets or a Service.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/openai/chat.h"
#include "api/openai/errors.h"
#include "api/openai/sampling_fields.h"
#include "api/openai/text.h"

namespace shoal::api::openai {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

JsonObject object(std::string_view text) {
  auto parsed = parse_json_object(text, "test");
  EXPECT_TRUE(parsed) << text;
  return parsed ? *parsed : JsonObject();
}

// A chat request with these extra members.
ApiResult<ChatCompletionRequest> chat(std::string_view members) {
  return parse_chat_request(
      object(fmt::format(R"({{"model":"m","messages":[{{"role":"user","content":"hi"}}]{}{}}})",
                         members.empty() ? "" : ",", members)));
}

ApiError refused(std::string_view members) {
  auto parsed = chat(members);
  EXPECT_FALSE(parsed) << members << " was accepted";
  return parsed ? ApiError{} : parsed.error();
}

TEST(ChatRequest, DefaultsAreThoseOfTheDialect) {
  const auto request = chat("");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->generate.model, "m");
  EXPECT_EQ(request->generate.sampling.temperature, 1);
  EXPECT_EQ(request->generate.sampling.top_p, 1);
  EXPECT_EQ(request->generate.sampling.top_k, 0U);
  EXPECT_FALSE(request->generate.max_tokens);
  EXPECT_EQ(request->choices, 1U);
  EXPECT_FALSE(request->stream);
  const auto& prompt = std::get<serving::ChatPrompt>(request->generate.prompt);
  EXPECT_EQ(to_text(prompt.messages), R"([{"role":"user","content":"hi"}])");
}

TEST(ChatRequest, EveryParameterArrives) {
  const auto request = chat(
      R"("temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05,"n":3,"stop":["a","b"],"seed":-7,"max_tokens":12,
         "presence_penalty":0.5,"frequency_penalty":-0.5,"repetition_penalty":1.1,"logit_bias":{"12":-100,"7":1.5},
         "logprobs":true,"top_logprobs":4,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true)");
  ASSERT_TRUE(request) << request.error().message;
  const auto& sampling = request->generate.sampling;
  EXPECT_FLOAT_EQ(sampling.temperature, 0.5F);
  EXPECT_FLOAT_EQ(sampling.top_p, 0.9F);
  EXPECT_EQ(sampling.top_k, 40U);
  EXPECT_FLOAT_EQ(sampling.min_p, 0.05F);
  EXPECT_FLOAT_EQ(sampling.presence_penalty, 0.5F);
  EXPECT_FLOAT_EQ(sampling.frequency_penalty, -0.5F);
  EXPECT_FLOAT_EQ(sampling.repetition_penalty, 1.1F);
  EXPECT_EQ(sampling.seed, static_cast<uint64_t>(int64_t{-7}));
  EXPECT_EQ(sampling.top_logprobs, 4U);
  EXPECT_THAT(sampling.logit_bias, ElementsAre(std::pair(12, -100.F), std::pair(7, 1.5F)));
  EXPECT_THAT(request->generate.stop, ElementsAre("a", "b"));
  EXPECT_EQ(request->generate.max_tokens, 12U);
  EXPECT_TRUE(request->generate.ignore_end_of_sequence);
  EXPECT_TRUE(request->generate.logprobs);
  EXPECT_EQ(request->choices, 3U);
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
}

TEST(ChatRequest, ChoicesHaveSuccessiveSeeds) {
  serving::GenerateRequest request;
  request.sampling.seed = 40;
  const auto spread = spread_choices(request, 3);
  ASSERT_EQ(spread.size(), 3U);
  EXPECT_EQ(spread[0].sampling.seed, 40U);
  EXPECT_EQ(spread[2].sampling.seed, 42U);
}

TEST(ChatRequest, NullMeansTheDefault) {
  const auto request = chat(
      R"("temperature":null,"top_p":null,"stop":null,"max_tokens":null,"n":null,"seed":null,"logit_bias":null,
         "tools":null,"tool_choice":null,"response_format":null,"stream_options":null,"invented":null)");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->generate.sampling.temperature, 1);
}

TEST(ChatRequest, AbsentSeedsDiffer) {
  EXPECT_NE(chat("")->generate.sampling.seed, chat("")->generate.sampling.seed);
}

TEST(ChatRequest, TheNewerLengthNameWins) {
  EXPECT_EQ(chat(R"("max_completion_tokens":5,"max_tokens":9)")->generate.max_tokens, 5U);
}

TEST(ChatRequest, WrongValuesAreNamed) {
  struct Case {
    std::string_view members, parameter, code;
  };
  const Case cases[] = {
      {R"("temperature":9)", "temperature", "decimal_above_max_value"},
      {R"("temperature":-0.1)", "temperature", "decimal_below_min_value"},
      {R"("temperature":"hot")", "temperature", "invalid_type"},
      {R"("top_p":1.1)", "top_p", "decimal_above_max_value"},
      {R"("n":0)", "n", "integer_below_min_value"},
      {R"("n":17)", "n", "integer_above_max_value"},
      {R"("n":1.5)", "n", "invalid_type"},
      {R"("max_tokens":0)", "max_tokens", "integer_below_min_value"},
      {R"("max_tokens":1e30)", "max_tokens", "integer_above_max_value"},
      {R"("stop":5)", "stop", "invalid_type"},
      {R"("stop":[""])", "stop", "invalid_value"},
      {R"("stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])", "stop",
       "array_above_max_length"},
      {R"("logit_bias":{"x":1})", "logit_bias", "invalid_value"},
      {R"("logit_bias":{"1":101})", "logit_bias", "invalid_value"},
      {R"("seed":"a")", "seed", "invalid_type"},
      {R"("stream":"yes")", "stream", "invalid_type"},
      {R"("top_logprobs":2)", "top_logprobs", "invalid_value"},
      {R"("logprobs":true,"top_logprobs":21)", "top_logprobs", "integer_above_max_value"},
      {R"("stream_options":{"include_usage":true})", "stream_options", "invalid_value"},
      {R"("stream":true,"stream_options":{"speed":1})", "stream_options.speed", "unknown_parameter"},
      {R"("tool_choice":"required")", "tool_choice", "unsupported_value"},
      {R"("tool_choice":{"type":"function","function":{"name":"f"}})", "tool_choice", "unsupported_value"},
      {R"("response_format":{"type":"json_object"})", "response_format", "unsupported_value"},
      {R"("functions":[])", "functions", "unsupported_parameter"},
      {R"("temprature":1)", "temprature", "unknown_parameter"},
  };
  for (const auto& wrong : cases) {
    const ApiError error = refused(wrong.members);
    EXPECT_EQ(error.status, 400) << wrong.members;
    EXPECT_EQ(error.parameter, wrong.parameter) << wrong.members << ": " << error.message;
    EXPECT_EQ(error.code, wrong.code) << wrong.members << ": " << error.message;
    EXPECT_THAT(error.message, HasSubstr(error.parameter.substr(0, error.parameter.find('.'))));
  }
}

TEST(ChatRequest, HarmlessParametersAreIgnored) {
  EXPECT_TRUE(
      chat(R"("user":"u","metadata":{"a":"b"},"store":false,"parallel_tool_calls":true,"service_tier":"auto",
                      "response_format":{"type":"text"},"modalities":["text"],"tool_choice":"auto")"));
}

TEST(ChatRequest, ModelAndMessagesAreNeeded) {
  EXPECT_EQ(parse_chat_request(object(R"({"messages":[{"role":"user","content":"x"}]})")).error().parameter,
            "model");
  EXPECT_EQ(parse_chat_request(object(R"({"model":"m"})")).error().parameter, "messages");
  EXPECT_EQ(parse_chat_request(object(R"({"model":"m","messages":[]})")).error().code, "empty_array");
}

TEST(Messages, PartsAreJoinedAndRolesKept) {
  const auto request = parse_chat_request(object(
      R"({"model":"m","messages":[
        {"role":"developer","content":"be brief"},
        {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
        {"role":"tool","tool_call_id":"c1","content":"42"}]})"));
  ASSERT_TRUE(request) << request.error().message;
  const auto& messages = std::get<serving::ChatPrompt>(request->generate.prompt).messages;
  EXPECT_EQ(to_text(messages[0]), R"({"role":"system","content":"be brief"})");
  EXPECT_EQ(to_text(messages[1]), R"({"role":"user","content":"ab"})");
  EXPECT_EQ(to_text(messages[2].at("tool_calls").at(0).at("function").at("arguments")), R"({"x":1})");
  EXPECT_EQ(messages[3].at("tool_call_id"), "c1");
}

TEST(Messages, WrongOnesAreNamedByPlace) {
  struct Case {
    std::string_view message, parameter;
  };
  const Case cases[] = {
      {R"(5)", "messages[0]"},
      {R"({"content":"x"})", "messages[0].role"},
      {R"({"role":"wizard","content":"x"})", "messages[0].role"},
      {R"({"role":"user"})", "messages[0].content"},
      {R"({"role":"user","content":5})", "messages[0].content"},
      {R"({"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]})",
       "messages[0].content[0].type"},
      {R"({"role":"user","content":[{"type":"text"}]})", "messages[0].content[0].text"},
      {R"({"role":"assistant","tool_calls":[{}]})", "messages[0].tool_calls[0].function"},
  };
  for (const auto& wrong : cases) {
    const auto parsed =
        parse_chat_request(object(fmt::format(R"({{"model":"m","messages":[{}]}})", wrong.message)));
    ASSERT_FALSE(parsed) << wrong.message;
    EXPECT_EQ(parsed.error().parameter, wrong.parameter) << parsed.error().message;
  }
}

TEST(TextRequest, PromptsOfEveryKind) {
  EXPECT_EQ(parse_text_request(object(R"({"model":"m","prompt":"x"})"))->generate.size(), 1U);
  EXPECT_EQ(parse_text_request(object(R"({"model":"m","prompt":["x","y"]})"))->generate.size(), 2U);
  const auto tokens = parse_text_request(object(R"({"model":"m","prompt":[[1,2],[3]],"n":2})"));
  ASSERT_TRUE(tokens);
  ASSERT_EQ(tokens->generate.size(), 2U);
  EXPECT_THAT(std::get<std::vector<int32_t>>(tokens->generate[0].prompt), ElementsAre(1, 2));
  EXPECT_EQ(tokens->generate[0].max_tokens, 16U);
  for (std::string_view prompt : {R"(5)", R"([])", R"(["a",1])", R"([-1])", R"({})"}) {
    EXPECT_EQ(
        parse_text_request(object(fmt::format(R"({{"model":"m","prompt":{}}})", prompt))).error().parameter,
        "prompt");
  }
  EXPECT_EQ(parse_text_request(object(R"({"model":"m","prompt":"x","echo":true})")).error().parameter,
            "echo");
}

TEST(ChatAnswer, WholeAnswersHaveTheDialectsShape) {
  ChatCompletionRequest request;
  request.generate.logprobs = true;
  auto format = make_chat_format({"chatcmpl-1", "m", 5}, request);
  Choice choice;
  choice.text = "é";
  choice.tokens = {{"\xC3", {1, -0.25F, {{2, -1.0F}}}, {"x"}}};
  choice.finish_reason = serving::FinishReason::length;
  const Response response = format->whole({choice}, {4, 1, 2});
  const JsonObject body = object(response.body);
  EXPECT_EQ(body.at("object"), "chat.completion");
  EXPECT_EQ(body.at("id"), "chatcmpl-1");
  EXPECT_EQ(body.at("choices").at(0).at("message").at("content"), "é");
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason"), "length");
  EXPECT_EQ(
      to_text(body.at("usage")),
      R"({"prompt_tokens":4,"completion_tokens":2,"total_tokens":6,"prompt_tokens_details":{"cached_tokens":1}})");
  const Json& token = body.at("choices").at(0).at("logprobs").at("content").at(0);
  EXPECT_EQ(token.at("token"), "\xEF\xBF\xBD");
  EXPECT_EQ(to_text(token.at("bytes")), "[195]");
  EXPECT_EQ(token.at("top_logprobs").at(0).at("token"), "x");
}

TEST(ChatAnswer, StreamsStartWithTheRoleAndEndWithDone) {
  ChatCompletionRequest request;
  request.include_usage = true;
  auto format = make_chat_format({"chatcmpl-1", "m", 5}, request);
  EXPECT_THAT(format->stream_start(1),
              HasSubstr(R"("delta":{"role":"assistant","content":"","refusal":null})"));
  EXPECT_THAT(format->stream_text(0, "hi\n", {}), HasSubstr(R"("delta":{"content":"hi\n"})"));
  EXPECT_EQ(format->stream_text(0, "", {}), "");
  Choice choice;
  choice.finish_reason = serving::FinishReason::stop;
  const std::string end = format->stream_choice_end(0, choice);
  EXPECT_THAT(end, HasSubstr(R"("delta":{},)"));
  EXPECT_THAT(end, HasSubstr(R"("finish_reason":"stop")"));
  EXPECT_THAT(end, HasSubstr(R"("usage":null)"));
  const std::string last = format->stream_end({1, 0, 1});
  EXPECT_THAT(last, HasSubstr(R"("choices":[],"usage":{"prompt_tokens":1)"));
  EXPECT_TRUE(last.ends_with("data: [DONE]\n\n"));
}

TEST(Errors, KindsHaveTheirStatusAndCode) {
  struct Case {
    Error error;
    int status;
    std::string_view code;
  };
  const Case cases[] = {
      {{ErrorCode::limit_exceeded,
        "This model's maximum context length is 512 tokens, but the prompt has 600",
        {}},
       400,
       "context_length_exceeded"},
      {{ErrorCode::unavailable, "queue full: 256 requests are waiting", {}}, 429, "rate_limit_exceeded"},
      {{ErrorCode::unavailable, "node 'bob' was lost", {}}, 503, "unavailable"},
      {{ErrorCode::not_found, "no model 'x'", {}}, 404, "model_not_found"},
      {{ErrorCode::out_of_memory, "needs 3 GiB more", {}}, 507, "out_of_memory"},
      {{ErrorCode::internal, "oops", {}}, 500, "internal_error"},
  };
  for (const auto& known : cases) {
    const Response response = error_response(naming_the_model(from_error(known.error)));
    EXPECT_EQ(response.status, known.status) << known.error.message;
    const JsonObject body = object(response.body);
    EXPECT_EQ(body.at("error").at("code"), Json(known.code)) << known.error.message;
    EXPECT_EQ(body.at("error").at("message"), Json(known.error.message));
    EXPECT_EQ(response.headers.size(),
              known.status == 429 || known.error.code == ErrorCode::unavailable ? 1U : 0U);
  }
}

}  // namespace
}  // namespace shoal::api::openai
