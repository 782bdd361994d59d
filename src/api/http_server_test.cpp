// The server over real loopback sockets with a fake Service: what clients do to servers, wilfully or not.
#include "api/http_server.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <future>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>

#include "api/api.h"
#include "api/fake_service.h"
#include "api/raw_client.h"

namespace shoal::api {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::string_view kStream = R"("stream":true)";
constexpr std::string_view kGetHealth = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

class Server : public ::testing::Test {
 protected:
  void start(HttpServerOptions options = {}, AccessRules rules = {}) {
    options.port = 0;
    options.addresses = {"127.0.0.1"};
    api_ = std::make_unique<Api>(service_, std::move(rules));
    auto server = HttpServer::start(io_, options, *api_);
    ASSERT_TRUE(server) << server.error().text();
    server_ = std::move(*server);
    port_ = server_->port();
    thread_ = std::thread([this] { io_.run(); });
  }

  void TearDown() override {
    if (!thread_.joinable()) return;
    on_loop([this] { server_.reset(); });
    work_.reset();
    thread_.join();
  }

  // Runs on the loop's thread and waits for it: the fake is not thread-safe.
  template <class F>
  std::invoke_result_t<F> on_loop(F function) {
    std::packaged_task<std::invoke_result_t<F>()> task(std::move(function));
    auto result = task.get_future();
    boost::asio::post(io_, [&task] { task(); });
    return result.get();
  }
  // Polls a condition on the loop until it holds; false when it never does.
  bool eventually(std::function<bool()> condition) {
    for (int i = 0; i < kPatienceMs; ++i) {
      if (on_loop(condition)) return true;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return false;
  }
  std::string ask(std::string_view request, std::string_view until) {
    Client client(port_);
    client.send(request);
    return client.read_until(until);
  }

  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_ =
      boost::asio::make_work_guard(io_);
  FakeService service_{io_};
  std::unique_ptr<Api> api_;
  std::unique_ptr<HttpServer> server_;
  uint16_t port_ = 0;
  std::thread thread_;
};

TEST_F(Server, AnswersAChatAtOnce) {
  start();
  const std::string answer = ask(chat("echo"), "\"cached_tokens\":2}}}");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("x-request-id: req_"));
  EXPECT_THAT(answer, HasSubstr(R"("content":"one two three")"));
  EXPECT_THAT(answer, HasSubstr(R"("finish_reason":"stop")"));
  EXPECT_THAT(answer, HasSubstr(R"("total_tokens":10)"));
}

TEST_F(Server, CountsEveryChoiceAndThePromptOnce) {
  start();
  const std::string answer = ask(chat("echo", R"("n":3,"seed":5)"), "\"cached_tokens\":2}}}");
  EXPECT_THAT(answer, HasSubstr(R"("prompt_tokens":7,"completion_tokens":9,"total_tokens":16)"));
  EXPECT_THAT(answer, HasSubstr(R"("index":2)"));
  EXPECT_EQ(on_loop([this] { return service_.requests[2].sampling.seed; }), 7U);
}

TEST_F(Server, StreamsAChatInChunks) {
  start();
  const std::string answer =
      ask(chat("echo", R"("stream":true,"stream_options":{"include_usage":true})"), "0\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("content-type: text/event-stream\r\n"));
  EXPECT_THAT(answer, HasSubstr("transfer-encoding: chunked\r\n"));
  const size_t role = answer.find(R"("role":"assistant")"), first = answer.find(R"("content":"one ")"),
               end = answer.find(R"("finish_reason":"stop")"), usage = answer.find(R"("total_tokens":10)"),
               done = answer.find("data: [DONE]\n\n");
  EXPECT_TRUE(role < first && first < end && end < usage && usage < done && done != answer.npos) << answer;
}

TEST_F(Server, FailuresBeforeTheFirstTokenHaveTheirStatusInStreamsToo) {
  start();
  on_loop([this] {
    service_.fail_with["long"] = {
        ErrorCode::limit_exceeded, "This model's maximum context length is 512 tokens", {}};
    service_.fail_with["full"] = {ErrorCode::unavailable, "queue full: 256 requests are waiting", {}};
    return 0;
  });
  EXPECT_THAT(ask(chat("nobody", kStream), "}}"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(ask(chat("nobody"), "}}"), HasSubstr(R"("code":"model_not_found")"));
  EXPECT_THAT(ask(chat("long", kStream), "}}"), HasSubstr("maximum context length is 512 tokens"));
  const std::string full = ask(chat("full", kStream), "}}");
  EXPECT_THAT(full, StartsWith("HTTP/1.1 429"));
  EXPECT_THAT(full, HasSubstr("retry-after: 1\r\n"));
}

TEST_F(Server, FailuresInTheMiddleAreAnEventAndEndTheStream) {
  start();
  const std::string answer = ask(chat("broken", kStream), "0\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr(R"("content":"one ")"));
  EXPECT_THAT(answer, HasSubstr(R"(data: {"error":{"message":"worker of node 'bob' was lost")"));
  EXPECT_THAT(answer, Not(HasSubstr("[DONE]")));
}

TEST_F(Server, KeepsConnectionsAndAnswersPipelinedRequestsInOrder) {
  start();
  Client client(port_);
  client.send(std::string(kGetHealth) + chat("echo") + std::string(kGetHealth));
  EXPECT_THAT(client.read_until(R"({"status":"ok"})"), HasSubstr("connection: keep-alive"));
  EXPECT_THAT(client.read_until("\"cached_tokens\":2}}}"), HasSubstr("one two three"));
  EXPECT_THAT(client.read_until(R"({"status":"ok"})"), StartsWith("HTTP/1.1 200"));
  client.send("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.read_all(), HasSubstr("connection: close"));
}

TEST_F(Server, TakesRequestsThatArriveByteByByteAndChunked) {
  start();
  Client client(port_);
  for (char byte : chat("echo")) client.send({&byte, 1});
  EXPECT_THAT(client.read_until("\"cached_tokens\":2}}}"), HasSubstr("one two three"));
  client.send("POST /v1/placements HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  client.send("7\r\n{\"model\r\n");
  client.send("9\r\n\": \"echo\"\r\n1\r\n}\r\n0\r\n\r\n");
  EXPECT_THAT(client.read_until("}"), HasSubstr(R"({"id":"i1","model":"echo"})"));
}

TEST_F(Server, AnswersHeadWithoutABody) {
  start();
  Client client(port_);
  client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const std::string answer = client.read_all();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
}

TEST_F(Server, InvitesTheBodyWhenAskedTo) {
  start();
  const std::string request = chat("echo");
  const size_t body = request.find("\r\n\r\n") + 4;
  Client client(port_);
  client.send(request.substr(0, body - 2) + "Expect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send(request.substr(body));
  EXPECT_THAT(client.read_until("\"cached_tokens\":2}}}"), HasSubstr("one two three"));
}

TEST_F(Server, RefusesWhatIsTooLargeWithoutReadingIt) {
  start({.maximum_body_bytes = 1000, .maximum_header_bytes = 2000});
  EXPECT_THAT(
      ask("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n", "}}"),
      StartsWith("HTTP/1.1 413"));
  Client sender(port_);  // sends all of it before it reads
  sender.send(post("/v1/chat/completions", std::string(300'000, ' ')));
  EXPECT_THAT(sender.read_all(), StartsWith("HTTP/1.1 413"));
  Client chunked(port_);
  chunked.send(
      "POST /v1/placements HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n500\r\n" +
      std::string(0x500, ' '));
  EXPECT_THAT(chunked.read_all(), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(
      ask("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + std::string(3000, 'x') + "\r\n\r\n", "}}"),
      StartsWith("HTTP/1.1 431"));
}

TEST_F(Server, CutsHalfSentRequestsAndServesOthersMeanwhile) {
  start({.header_timeout = milliseconds(50), .body_timeout = milliseconds(50)});
  Client slow(port_), slow_body(port_);
  slow.send("GET /health HTTP/1.1\r\nHost: loc");
  slow_body.send("POST /v1/placements HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{");
  EXPECT_THAT(ask(kGetHealth, "}"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(slow.read_all(), StartsWith("HTTP/1.1 408"));
  EXPECT_THAT(slow_body.read_all(), StartsWith("HTTP/1.1 408"));
}

TEST_F(Server, ClosesIdleConnections) {
  start({.idle_timeout = milliseconds(20)});
  Client client(port_);
  EXPECT_EQ(client.read_all(), "");
}

TEST_F(Server, CancelsWhenTheClientLeaves) {
  start();
  for (std::string_view model : {"endless", "silent"}) {
    for (std::string_view members : {kStream, std::string_view(R"("n":2)")}) {
      const size_t before = on_loop([this] { return service_.cancelled; });
      Client client(port_);
      client.send(chat(model, members));
      ASSERT_TRUE(eventually([this] { return service_.running() > 0; }));
      client.close();
      EXPECT_TRUE(eventually([this] { return service_.running() == 0; })) << model << members;
      EXPECT_EQ(on_loop([this] { return service_.cancelled; }) - before, members == kStream ? 1U : 2U);
    }
  }
}

TEST_F(Server, DropsClientsThatDoNotReadTheirStream) {
  start({.maximum_unsent_bytes = 256 * limits::kKiB});
  on_loop([this] {
    service_.endless_word = std::string(64 * limits::kKiB, 'x');
    return 0;
  });
  Client client(port_);
  client.send(chat("endless", kStream));
  EXPECT_TRUE(eventually([this] { return service_.cancelled == 1; }));
}

TEST_F(Server, ServesSixtyFourStreamsAtOnce) {
  start();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(std::make_unique<Client>(port_));
    clients.back()->send(chat("endless", R"("stream":true,"max_tokens":50)"));
  }
  for (auto& client : clients) {
    const std::string answer = client->read_until("0\r\n\r\n");
    EXPECT_THAT(answer, HasSubstr("data: [DONE]"));
    EXPECT_THAT(answer, HasSubstr(R"("finish_reason":"length")"));
  }
}

TEST_F(Server, RefusesMoreConnectionsThanItsCap) {
  start({.maximum_connections = 2});
  Client first(port_), second(port_);
  first.send(kGetHealth);
  second.send(kGetHealth);
  first.read_until("}");
  second.read_until("}");
  Client third(port_);
  EXPECT_THAT(third.read_all(), StartsWith("HTTP/1.1 503"));
  first.close();
  for (int i = 0; i < kPatienceMs && !ask(kGetHealth, "}").starts_with("HTTP/1.1 200"); ++i) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_THAT(ask(kGetHealth, "}"), StartsWith("HTTP/1.1 200"));
}

TEST_F(Server, SaysWhichMethodsAPathTakes) {
  start();
  const std::string answer = ask("GET /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\r\n", "}}");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(answer, HasSubstr("allow: POST\r\n"));
  EXPECT_THAT(ask("GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", "}}"), StartsWith("HTTP/1.1 404"));
}

TEST_F(Server, ChecksAccessBeforeTheBody) {
  AccessRules rules;
  rules.api_key = "k";
  start({}, rules);
  EXPECT_THAT(
      ask("POST /v1/chat/completions HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 9\r\n\r\n", "}}"),
      StartsWith("HTTP/1.1 403"));
  const std::string missing =
      ask("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", "}}");
  EXPECT_THAT(missing, StartsWith("HTTP/1.1 401"));
  EXPECT_THAT(missing, HasSubstr(R"("code":"invalid_api_key")"));
  EXPECT_THAT(ask("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n\r\n", "}]}"),
              HasSubstr("org/repo:Q4_K_M"));
}

TEST_F(Server, PlacesAndStopsModels) {
  start();
  EXPECT_THAT(ask(post("/v1/placements?preview", R"({"model":"echo","min_nodes":3,"context":512,"strategy":"tensor",
                       "objective":"throughput","wire":"bf16","concurrency":8})"),
                  "}"),
              StartsWith("HTTP/1.1 200"));
  const auto placed = on_loop([this] { return service_.placed.at(0); });
  EXPECT_TRUE(placed.preview);
  EXPECT_EQ(placed.minimum_nodes, 3U);
  EXPECT_EQ(placed.context_tokens, 512U);
  EXPECT_EQ(placed.strategy, planner::Strategy::tensor);
  EXPECT_EQ(placed.objective, planner::Objective::throughput);
  EXPECT_EQ(placed.wire, planner::WireFormat::bf16);
  EXPECT_EQ(placed.concurrency, 8U);
  EXPECT_THAT(ask(post("/v1/placements", R"({"model":"echo","strategy":"best"})"), "}}"),
              HasSubstr("must be one of auto, pipeline, tensor, hybrid, not 'best'"));
  EXPECT_THAT(ask(post("/v1/placements", R"({"model":"huge"})"), "}}"), HasSubstr("9 GiB"));
  EXPECT_THAT(ask(post("/v1/placements", R"({"modle":"huge"})"), "}}"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("GET /v1/instances/i1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "}"),
              HasSubstr(R"("model":"echo")"));
  EXPECT_THAT(ask("DELETE /v1/instances/i1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "}"), HasSubstr("stopped"));
  EXPECT_THAT(ask("DELETE /v1/instances/i2 HTTP/1.1\r\nHost: localhost\r\n\r\n", "}}"),
              StartsWith("HTTP/1.1 404"));
}

TEST_F(Server, SurvivesMalformedRequests) {
  start({.header_timeout = milliseconds(50),
         .idle_timeout = milliseconds(50),
         .body_timeout = milliseconds(50)});
  std::mt19937 random(7);
  const std::string whole = chat("echo", kStream);
  for (int i = 0; i < 300; ++i) {
    std::string bytes = whole;
    const int changes = 1 + static_cast<int>(random() % 8);
    for (int j = 0; j < changes; ++j) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (i % 3 == 0) bytes.resize(random() % bytes.size());
    Client client(port_);
    client.send(bytes);
    if (i % 2 == 0) client.close();
  }
  for (std::string_view bytes :
       {"\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    Client client(port_);
    client.send(bytes);
    EXPECT_THAT(client.read_all(), testing::AnyOf(StartsWith("HTTP/1.1 4"), StartsWith("HTTP/1.1 505")))
        << bytes;
  }
  EXPECT_THAT(ask(post("/v1/chat/completions", "{\"a\":"), "}}"), HasSubstr("invalid_json"));
  EXPECT_THAT(ask(post("/v1/chat/completions", std::string(100'000, '[')), "}}"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask(kGetHealth, "}"), StartsWith("HTTP/1.1 200"));
}

TEST_F(Server, StopsGracefullyAndCutsWhatDoesNotEnd) {
  start();
  Client idle(port_), ending(port_), endless(port_);
  idle.send(kGetHealth);
  idle.read_until("}");
  endless.send(chat("endless", kStream));
  endless.read_until("word");
  std::promise<void> stopped;
  on_loop([&] {
    server_->stop(milliseconds(100), [&stopped] { stopped.set_value(); });
    return 0;
  });
  EXPECT_EQ(idle.read_all(), "");
  stopped.get_future().wait();
  EXPECT_EQ(on_loop([this] { return service_.running(); }), 0U);
  EXPECT_FALSE(endless.read_all().contains("[DONE]"));
}

TEST_F(Server, EveryAddressAcceptsAgainAfterDescriptorsRanOut) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's check of dynamic types needs a descriptor itself";
#endif
  api_ = std::make_unique<Api>(service_, AccessRules{});
  auto server = HttpServer::start(io_, {.addresses = {"127.0.0.1", "127.0.0.2"}, .port = 0}, *api_);
  if (!server) GTEST_SKIP() << server.error().text();
  server_ = std::move(*server);
  Client first(server_->port()), second(server_->port(), INADDR_LOOPBACK + 1);
  first.send(kGetHealth);
  second.send(kGetHealth);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next_descriptor = ::dup(STDIN_FILENO);
  ::close(next_descriptor);
  const rlimit none{static_cast<rlim_t>(next_descriptor), before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  thread_ = std::thread([this] { io_.run(); });
  for (int i = 0; i < 10; ++i) {
    on_loop([] { return 0; });  // both have failed to accept by then
    std::this_thread::sleep_for(milliseconds(1));
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_THAT(first.read_until("}"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(second.read_until("}"), StartsWith("HTTP/1.1 200"));
}

TEST_F(Server, NamesAPortThatIsTaken) {
  start();
  const auto second = HttpServer::start(io_, {.addresses = {"127.0.0.1"}, .port = port_}, *api_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::conflict);
  EXPECT_THAT(second.error().message, HasSubstr(std::to_string(port_)));
  EXPECT_THAT(second.error().message, HasSubstr("in use"));
}

}  // namespace
}  // namespace shoal::api
