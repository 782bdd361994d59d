// The cards of the models this node was asked about, each read once however many requests wait for it.
// Event-loop thread; the reading happens in the task pool.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "hub/model_store.h"
#include "serving/gateway.h"
#include "serving/model_card.h"
#include "serving/task_pool.h"

namespace shoal::serving {

class CardShelf {
 public:
  CardShelf(TaskPool& tasks, std::shared_ptr<const hub::ModelStore> store)
      : tasks_(tasks), store_(std::move(store)) {}

  // By a name that the store resolves.
  void find(const std::string& name, CardCallback done);
  // The model with these files; `name` is what others call it, for the Error.
  void find_digest(const std::string& digest, const std::string& name, CardCallback done);

 private:
  void find_stored(Result<hub::StoredModel> stored, CardCallback done);

  TaskPool& tasks_;
  std::shared_ptr<const hub::ModelStore> store_;
  std::map<std::string, std::shared_ptr<const ModelCard>> cards_;  // by digest
  std::map<std::string, std::vector<CardCallback>> waiting_;       // likewise, while one is being read
};

}  // namespace shoal::serving
