// Threads for work that would hold up the event loop: opening checkpoints, rendering templates, tokenising.
// What a task returns is handed to `then` on the loop's thread, unless the pool is gone by then.
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <utility>

namespace shoal::serving {

class TaskPool {
 public:
  TaskPool(boost::asio::io_context& io, size_t threads) : io_(io), threads_(threads) {}
  ~TaskPool() { close(); }

  // Waits for the tasks that run; the others, and every `then` to come, are dropped.
  void close() {
    alive_.reset();
    threads_.stop();
    threads_.join();
  }

  template <class Work, class Then>
  void run(Work work, Then then) {
    if (!alive_) return;
    auto guard = boost::asio::make_work_guard(io_);
    boost::asio::post(threads_, [this, alive = std::weak_ptr<bool>(alive_), guard = std::move(guard),
                                 work = std::move(work), then = std::move(then)]() mutable {
      auto result = work();
      boost::asio::post(
          io_, [alive = std::move(alive), then = std::move(then), result = std::move(result)]() mutable {
            if (alive.lock()) then(std::move(result));
          });
    });
  }

 private:
  boost::asio::io_context& io_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  boost::asio::thread_pool threads_;
};

}  // namespace shoal::serving
