#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>

namespace rubato {

/// Shares `count` processors among more roles than that, turn by turn. Left to the operating system they would alternate every
/// few milliseconds and each time find their activations gone from the cache; a turn here is about as long as a batch. First
/// come, first served. Thread-safe.
class Processors {
 public:
  /// 0: as many as there are roles; nobody ever waits.
  explicit Processors(int count) : count_(count), free_(count) {}

  /// One role's hold on a processor.
  class Hold {
   public:
    explicit Hold(Processors& processors) : processors_(processors) {}
    ~Hold() { release(); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    /// Blocks until a processor is free, unless it has one.
    void acquire();
    void release();
    /// Lets another role have it if one is waiting and the turn is over.
    void offer();

   private:
    Processors& processors_;
    bool held_ = false;
    std::chrono::steady_clock::time_point since_;
  };

 private:
  static constexpr std::chrono::milliseconds turn{100};

  struct Waiter {
    std::condition_variable called;
    bool has_turn = false;
  };
  void release_one();

  const int count_;
  std::mutex mutex_;  ///< guards the two below; innermost, never held while a role works
  int free_;
  std::deque<Waiter*> waiting_;  ///< not empty only while `free_` is 0
};

}  // namespace rubato
