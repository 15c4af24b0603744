// Memory aligned to cache lines, so that vector loads do not cross them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <new>

#include "factor_readout.h"

namespace brainkit {

// Not initialised. Only for numbers.
template <typename T>
class Buffer {
  public:
    explicit Buffer(Index size)
        : data_(static_cast<T*>(::operator new(sizeof(T) * static_cast<std::size_t>(size), kAlignment))) {}
    ~Buffer() {
        if (data_ != nullptr) ::operator delete(data_, kAlignment);
    }
    Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer& operator=(Buffer&&) = delete;

    T* data() { return data_; }
    const T* data() const { return data_; }
    T& operator[](Index i) { return data_[i]; }
    const T& operator[](Index i) const { return data_[i]; }

  private:
    static constexpr std::align_val_t kAlignment{64};
    T* data_;
};

template <typename T>
Buffer<T> zeros(Index size) {
    Buffer<T> buffer(size);
    std::fill_n(buffer.data(), size, T(0));
    return buffer;
}

}  // namespace brainkit
