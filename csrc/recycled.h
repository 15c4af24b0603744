// One large block of memory that outlives its use, for what is made anew in every training step: getting fresh pages
// from the system for it costs more than filling it.
#pragma once

#include <cstddef>
#include <mutex>
#include <new>
#include <utility>

namespace brainkit {

// Aligned to 64 bytes, not initialised. The last block given back is kept, if it is the largest so far, and given out
// again to whom it fits. It may be called from several threads at once.
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
