#include "pool.h"

#include <condition_variable>
#include <deque>
#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace brainkit {
namespace {

// An upper limit, whatever the caller requests.
constexpr int kMostHelpers = 512;

struct Job {
    Job(const std::function<void()>* work, int helpers) : body(work), wanted(helpers) {}

    const std::function<void()>* body;
    int wanted;  // helpers that may still join
    int active = 0;
    std::condition_variable done;
};

class Pool {
  public:
    void run(int threads, const std::function<void()>& body) {
        Job job(&body, std::min(threads - 1, kMostHelpers));
        {
            const std::lock_guard<std::mutex> guard(lock_);
            wanted_ += job.wanted;
            try {
                for (; helpers_ - busy_ < wanted_ && helpers_ < kMostHelpers; ++helpers_) {
                    std::thread(&Pool::serve, this).detach();
                }
            } catch (const std::system_error&) {
                // The system has no more threads: the existing ones do all the work.
            }
            jobs_.push_back(&job);
        }
        for (int i = 1; i < threads; ++i) wake_.notify_one();
        body();
        std::unique_lock<std::mutex> guard(lock_);
        if (job.wanted > 0) {
            wanted_ -= job.wanted;
            jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
        }
        job.done.wait(guard, [&] { return job.active == 0; });
    }

  private:
    void serve() {
        std::unique_lock<std::mutex> guard(lock_);
        for (;;) {
            wake_.wait(guard, [&] { return !jobs_.empty(); });
            Job& job = *jobs_.front();
            ++job.active;
            ++busy_;
            --wanted_;
            if (--job.wanted == 0) jobs_.pop_front();
            guard.unlock();
            (*job.body)();
            guard.lock();
            --busy_;
            // Still under the lock: once it is released, the caller may return and destroy the job.
            if (--job.active == 0) job.done.notify_one();
        }
    }

    std::mutex lock_;
    std::condition_variable wake_;
    std::deque<Job*> jobs_;  // jobs that more helpers may join
    int helpers_ = 0;
    int busy_ = 0;
    int wanted_ = 0;  // summed over jobs_
};

// Never destroyed: its threads wait on it until the process ends.
std::atomic<Pool*> current{nullptr};

#if !defined(_WIN32)
// A forked child has none of its parent's threads, and the lock may be held: it gets a new pool.
const int at_fork = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
#endif

Pool& pool() {
    Pool* found = current.load();
    if (found != nullptr) return *found;
    Pool* fresh = new Pool;
    if (current.compare_exchange_strong(found, fresh)) return *fresh;
    delete fresh;
    return *found;
}

}  // namespace

void run_on_threads(int threads, const std::function<void()>& body) {
    if (threads <= 1) {
        body();
    } else {
        pool().run(threads, body);
    }
}

}  // namespace brainkit
