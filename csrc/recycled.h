// One large block of memory that is reused, for data of every training step: new pages from the system would cost more
// than filling them.
#pragma once

#include <cstddef>
#include <mutex>
#include <new>
#include <utility>

namespace brainkit {

// Aligned to 64 bytes, not initialised. A returned block is kept if it is the largest so far, and handed out again if
// it is large enough. Thread-safe.
class Recycled {
  public:
    Recycled() = default;
    ~Recycled() { give_back_to_system(spare_); }
    Recycled(const Recycled&) = delete;
    Recycled& operator=(const Recycled&) = delete;

    struct Block {
        void* data = nullptr;
        std::size_t size = 0;
    };

    Block take(std::size_t size) {
        {
            const std::lock_guard<std::mutex> guard(lock_);
            if (spare_.size >= size && spare_.size / 2 <= size) return std::exchange(spare_, Block{});
        }
        return {::operator new(size, kAlignment), size};
    }

    void give_back(Block block) {
        {
            const std::lock_guard<std::mutex> guard(lock_);
            if (block.size > spare_.size) std::swap(block, spare_);
        }
        give_back_to_system(block);
    }

  private:
    static void give_back_to_system(const Block& block) {
        if (block.data != nullptr) ::operator delete(block.data, kAlignment);
    }

    static constexpr std::align_val_t kAlignment{64};
    std::mutex lock_;
    Block spare_;
};

}  // namespace brainkit
