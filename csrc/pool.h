// Threads that are started once and reused: starting threads for every call would cost as much as a small call.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <mutex>

#include "factor_readout.h"

namespace brainkit {

// Calls body() on up to `threads` threads at once, including this one, and returns when all have returned. It may be
// called from several threads at once, and in a child process after a fork. body must not throw.
void run_on_threads(int threads, const std::function<void()>& body);

// Runs work(item, scratch) for every item on up to `threads` threads, in no fixed assignment: items must not depend on
// one another, nor write to the same memory. The first exception is rethrown here.
template <typename MakeScratch, typename Work>
void for_each(Index items, int threads, MakeScratch make_scratch, Work work) {
    if (items <= 0) return;
    std::atomic<Index> next{0};
    std::exception_ptr error;
    std::mutex error_lock;
    run_on_threads(static_cast<int>(std::min<Index>(threads, items)), [&] {
        try {
            if (next.load(std::memory_order_relaxed) >= items) return;  // nothing left to do
            auto scratch = make_scratch();
            for (Index item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) work(item, scratch);
        } catch (...) {
            next.store(items, std::memory_order_relaxed);
            const std::lock_guard<std::mutex> guard(error_lock);
            if (!error) error = std::current_exception();
        }
    });
    if (error) std::rethrow_exception(error);
}

template <typename Work>
void for_each(Index items, int threads, Work work) {
    for_each(items, threads, [] { return 0; }, [&](Index item, int) { work(item); });
}

}  // namespace brainkit
