// Tokens in the layout that the kernels read, and what else is brought together for them.
#pragma once

#include <vector>

#include "buffer.h"
#include "plan.h"
#include "pool.h"

namespace brainkit {

// Tokens that are packed at a time. Packed whole, those of a large grid would have to go out to memory and come back.
constexpr Index kBandBytes = 12 << 20;

// Blocks of channels as rows of their width, padded with zeros: for every block and cell (images, layers, width).
//
// Large grids are gone through band by band of group rows: a band holds the rows of cells that its groups touch. The
// last of these is the next band's first, so it is kept, and its successors take the places of the others.
template <typename T>
class PackedTokens {
  public:
    PackedTokens(const Shape& shape, const Inputs<T>& inputs, const Blocks& blocks)
        : s_(shape),
          in_(inputs),
          blocks_(blocks),
          step_(band_rows(shape, s_.layers * blocks.padded() * static_cast<Index>(sizeof(T)))),
          held_(std::min(shape.height, step_ + 1)),
          starts_(starts()),
          packed_(starts_.back()) {}

    // Group rows first_row(band) .. first_row(band + 1) - 1 can be read once pack(band) was called for this band and
    // for all before, in order.
    Index bands() const { return (s_.height + step_) / step_; }
    Index first_row(Index band) const { return std::min(band * step_, s_.height + 1); }

    void pack(Index band, int threads) {
        const Index begin = first_row(band);
        const Index end = std::min(first_row(band + 1), s_.height);
        for_each(blocks_.count() * s_.images * s_.layers, threads, [&](Index item) {
            const Index block = item / s_.layers / s_.images;
            const Index image = item / s_.layers % s_.images;
            const Index layer = item % s_.layers;
            for (Index row = begin; row < end;) {
                // Rows that lie together in both arrays.
                const Index rows = std::min(end - row, held_ - row % held_);
                pack_rows(block, image, layer, row, rows);
                row += rows;
            }
            if (band == 0) pack_global(block, image, layer);
        });
    }

    const T* cell(Index block, Index cell) const {
        return place(block, cell / s_.width % held_ * s_.width + cell % s_.width);
    }
    const T* global(Index block) const { return place(block, held_ * s_.width); }
    // Odd numbers of vectors, as the strides of the cells are: what lies a power of two apart shares few places in the
    // caches.
    Index image_stride(Index block) const { return (s_.layers * blocks_.vectors(block) | 1) * kernels_.lanes; }

  private:
    // Group rows of a band, so that its cells keep within bounds: all of them, or at least four, because every band
    // but the first holds one row of cells more.
    static Index band_rows(const Shape& s, Index image_bytes) {
        const Index row_bytes = std::max<Index>(1, s.images * s.width * image_bytes);
        if (s.height * row_bytes <= kBandBytes) return s.height + 1;
        return std::min(s.height + 1, std::max<Index>(4, kBandBytes / row_bytes - 1));
    }

    Index cell_stride(Index block) const {
        return s_.images * image_stride(block) + (s_.images % 2 == 0 ? kernels_.lanes : 0);
    }

    std::vector<Index> starts() const {
        std::vector<Index> starts{0};
        for (Index block = 0; block < blocks_.count(); ++block) {
            starts.push_back(starts.back() + (held_ * s_.width + 1) * cell_stride(block));
        }
        return starts;
    }

    const T* place(Index block, Index slot) const {
        return packed_.data() + starts_[block] + slot * cell_stride(block);
    }
    T* place(Index block, Index slot) {
        return const_cast<T*>(static_cast<const PackedTokens*>(this)->place(block, slot));
    }

    void pack_rows(Index block, Index image, Index layer, Index row, Index rows) {
        const Index width = blocks_.width(block);
        const Index real = blocks_.real(block);
        const Index channel = (image * s_.layers + layer) * s_.channels + blocks_.first(block);
        T* to = place(block, row % held_ * s_.width) + image * image_stride(block) + layer * width;
        kernels_.transpose(in_.local + (channel * s_.height + row) * s_.width, s_.height * s_.width, real,
                           rows * s_.width, to, cell_stride(block));
        if (real == width) return;
        for (Index cell = 0; cell < rows * s_.width; ++cell, to += cell_stride(block))
            std::fill(to + real, to + width, T(0));
    }

    void pack_global(Index block, Index image, Index layer) {
        const Index width = blocks_.width(block);
        const Index real = blocks_.real(block);
        T* to = place(block, held_ * s_.width) + image * image_stride(block) + layer * width;
        std::copy_n(in_.global + (image * s_.layers + layer) * s_.channels + blocks_.first(block), real, to);
        std::fill(to + real, to + width, T(0));
    }

    const Kernels<T>& kernels_ = kernels<T>();
    const Shape s_;
    const Inputs<T> in_;
    const Blocks blocks_;
    const Index step_;                 // group rows of a band
    const Index held_;                 // rows of cells
    const std::vector<Index> starts_;  // of the blocks
    Buffer<T> packed_;
};

}  // namespace brainkit
