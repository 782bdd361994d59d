#include "serving/card_shelf.h"

#include <fmt/format.h>

namespace shoal::serving {

void CardShelf::find(const std::string& name, CardCallback done) {
  tasks_.run([store = store_, name] { return store->resolve(name); },
             [this, done = std::move(done)](Result<hub::StoredModel> stored) mutable {
               find_stored(std::move(stored), std::move(done));
             });
}

void CardShelf::find_digest(const std::string& digest, const std::string& name, CardCallback done) {
  if (const auto known = cards_.find(digest); known != cards_.end()) return done(known->second);
  tasks_.run(
      [store = store_, digest] { return store->resolve_digest(digest); },
      [this, name, done = std::move(done)](Result<hub::StoredModel> stored) mutable {
        if (!stored)
          return done(fail(ErrorCode::not_found, fmt::format("this node does not hold model '{}'", name),
                           "copy the model's files to it"));
        find_stored(std::move(stored), std::move(done));
      });
}

void CardShelf::find_stored(Result<hub::StoredModel> stored, CardCallback done) {
  if (!stored) return done(std::unexpected(std::move(stored).error()));
  if (const auto known = cards_.find(stored->digest); known != cards_.end()) return done(known->second);
  const std::string digest = stored->digest;
  std::vector<CardCallback>& waiting = waiting_[digest];
  waiting.push_back(std::move(done));
  if (waiting.size() > 1) return;
  tasks_.run([stored = *std::move(stored)] { return read_model_card(stored); },
             [this, digest](Result<std::shared_ptr<const ModelCard>> card) {
               if (card) cards_[digest] = *card;
               const std::vector<CardCallback> callbacks = std::exchange(waiting_[digest], {});
               waiting_.erase(digest);
               for (const CardCallback& callback : callbacks) callback(card);
             });
}

}  // namespace shoal::serving
