// The application behind the HTTP server: access rules, routes of every dialect, errors in each dialect's
// form, the access log and the HTTP metrics. Give it to HttpServer::start() and keep it alive as long as that
// server.
#pragma once

#include <memory>

#include "api/access.h"
#include "api/http.h"
#include "api/metrics.h"
#include "api/router.h"
#include "serving/service.h"

namespace shoal::api {

class Api final : public RequestHandler {
 public:
  // `service` must outlive this object.
  Api(serving::Service& service, AccessRules rules);

  // After the server was bound: whether only this machine can reach it.
  void set_loopback_only(bool loopback_only) { rules_.loopback_only = loopback_only; }

  std::optional<Response> refuse(const RequestHead& head) override;
  void handle(Request request, std::shared_ptr<Exchange> exchange) override;
  Response fault(const RequestHead& head, int status, std::string_view message) override;
  void finished(const AccessRecord& record) override;
  void connections_changed(size_t open) override { metrics_.set_connections(open); }

 private:
  AccessRules rules_;
  Router router_;
  HttpMetrics metrics_;
};

}  // namespace shoal::api
