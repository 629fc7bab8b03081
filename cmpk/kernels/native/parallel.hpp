// Work items spread over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace cmpk {

// Calls `work(worker, item)` once for each item 0 .. n_items - 1, on at most `n_threads` threads of
// which the caller's is one; `worker` is below n_threads and tells which. After an exception no
// further item is begun, and one of the exceptions is thrown here.
template <class Work>
void parallel_for(std::size_t n_items, unsigned n_threads, const Work& work) {
  n_threads = static_cast<unsigned>(std::min<std::size_t>(n_threads, n_items));
  if (n_threads <= 1) {
    for (std::size_t item = 0; item < n_items; ++item) work(0u, item);
    return;
  }
  std::atomic<std::size_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
  const auto run = [&](unsigned worker) {
    try {
      for (std::size_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < n_items;) work(worker, item);
    } catch (...) {
      next.store(n_items, std::memory_order_relaxed);
      const std::lock_guard<std::mutex> lock(error_mutex);
      error = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(n_threads - 1);
  try {
    for (unsigned worker = 1; worker < n_threads; ++worker) threads.emplace_back(run, worker);
  } catch (const std::system_error&) {
    // The system grants no more threads: those there are do the work.
  }
  run(0);
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace cmpk
