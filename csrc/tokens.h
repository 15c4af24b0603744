// Tokens in the layout that the float kernels read.
#pragma once

#include <vector>

#include "bands.h"
#include "buffer.h"
#include "plan.h"
#include "pool.h"

namespace brainkit {

// Blocks of channels as rows of their width, padded with zeros: for every block and cell (images, layers, width).
template <typename T>
class PackedTokens {
  public:
    PackedTokens(const Shape& shape, const Inputs<T>& inputs, const Blocks& blocks)
        : s_(shape),
          in_(inputs),
          blocks_(blocks),
          bands_(shape, shape.images * shape.layers * blocks.padded() * static_cast<Index>(sizeof(T))),
          starts_(starts()),
          packed_(starts_.back()) {}

    const Bands& bands() const { return bands_; }

    // A band can be read after this was called for it and all previous bands, in order.
    void pack(Index band, int threads) {
        for_each(blocks_.count() * s_.images * s_.layers, threads, [&](Index item) {
            const Index block = item / s_.layers / s_.images;
            const Index image = item / s_.layers % s_.images;
            const Index layer = item % s_.layers;
            bands_.for_each_piece(
                band, [&](Index cell, Index cells, Index slot) { pack_cells(block, image, layer, cell, cells, slot); });
            if (band == 0) pack_global(block, image, layer);
        });
    }

    const T* cell(Index block, Index cell) const { return place(block, bands_.slot(cell)); }
    const T* global(Index block) const { return place(block, bands_.global_slot()); }
    // Odd numbers of vectors, like the strides of cells: addresses that differ by powers of two share few cache sets.
    Index image_stride(Index block) const { return (s_.layers * blocks_.vectors(block) | 1) * kernels_.lanes; }

  private:
    Index cell_stride(Index block) const {
        return s_.images * image_stride(block) + (s_.images % 2 == 0 ? kernels_.lanes : 0);
    }

    std::vector<Index> starts() const {
        std::vector<Index> starts{0};
        for (Index block = 0; block < blocks_.count(); ++block) {
            starts.push_back(starts.back() + bands_.slots() * cell_stride(block));
        }
        return starts;
    }

    const T* place(Index block, Index slot) const {
        return packed_.data() + starts_[block] + slot * cell_stride(block);
    }

    T* row(Index block, Index image, Index layer, Index slot) {
        return packed_.data() + (place(block, slot) - packed_.data()) + image * image_stride(block) +
               layer * blocks_.width(block);
    }

    void pack_cells(Index block, Index image, Index layer, Index cell, Index cells, Index slot) {
        const Index width = blocks_.width(block);
        const Index real = blocks_.real(block);
        const Index channel = (image * s_.layers + layer) * s_.channels + blocks_.first(block);
        const Index grid = s_.height * s_.width;
        T* to = row(block, image, layer, slot);
        kernels_.transpose(in_.local + channel * grid + cell, grid, real, cells, to, cell_stride(block));
        for (Index i = 0; i < cells; ++i, to += cell_stride(block)) std::fill(to + real, to + width, T(0));
    }

    void pack_global(Index block, Index image, Index layer) {
        const Index real = blocks_.real(block);
        T* to = row(block, image, layer, bands_.global_slot());
        std::copy_n(in_.global + (image * s_.layers + layer) * s_.channels + blocks_.first(block), real, to);
        std::fill(to + real, to + blocks_.width(block), T(0));
    }

    const Kernels<T>& kernels_ = kernels<T>();
    const Shape s_;
    const Inputs<T> in_;
    const Blocks blocks_;
    const Bands bands_;
    const std::vector<Index> starts_;  // of the blocks
    Buffer<T> packed_;
};

}  // namespace brainkit
