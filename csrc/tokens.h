// Tokens in the layouts that the kernels read.
#pragma once

#include "buffer.h"
#include "plan.h"
#include "pool.h"

namespace brainkit {

constexpr Index kCells = 16;  // cells moved at a time

// A block of channels is kept as rows of its width, padded with zeros. Row (image, cell, layer) of a block starts at
// image * image_stride + cell * cell_stride + layer * layer_stride rows; the cell after the grid's last is the global
// token.
struct Rows {
    Index image, cell, layer;  // strides
    Index count;               // of a block
};

inline Rows images_first(const Shape& s) {
    const Index cells = s.height * s.width + 1;
    return {cells * s.layers, s.layers, 1, s.images * cells * s.layers};
}

inline Rows images_last(const Shape& s) {
    const Index cells = s.height * s.width + 1;
    return {1, s.layers * s.images, s.images, s.images * cells * s.layers};
}

// All blocks, one after another: block n starts at rows.count * blocks.first(n).
template <typename T>
Buffer<T> pack_tokens(const Shape& s, const Inputs<T>& in, const Blocks& blocks, const Rows& rows, int threads) {
    const Index cells = s.height * s.width;
    Buffer<T> packed(rows.count * blocks.padded());
    for_each(blocks.count() * s.images, threads, [&](Index item) {
        const Index block = item / s.images;
        const Index image = item % s.images;
        const Index width = blocks.width(block);
        const Index real = blocks.real(block);
        T* base = packed.data() + rows.count * blocks.first(block) + image * rows.image * width;
        for (Index layer = 0; layer < s.layers; ++layer) {
            const Index channel = (image * s.layers + layer) * s.channels + blocks.first(block);
            T* to = base + layer * rows.layer * width;
            const Index step = rows.cell * width;
            const T* from = in.local + channel * cells;
            // A few cells at a time, because channels lie far apart in one array and cells in the other.
            for (Index first = 0; first < cells; first += kCells) {
                const Index end = std::min(cells, first + kCells);
                for (Index d = 0; d < real; ++d) {
                    for (Index cell = first; cell < end; ++cell) to[cell * step + d] = from[d * cells + cell];
                }
            }
            std::copy_n(in.global + channel, real, to + cells * step);
            for (Index cell = 0; cell <= cells; ++cell) {
                std::fill(to + cell * step + real, to + cell * step + width, T(0));
            }
        }
    });
    return packed;
}

// One block of the weights of `count` vertices, then zeros to `rows` rows: (rows, block). The weights lie anywhere in
// memory, and are read several times: so they are brought together first.
template <typename T>
void gather_weights(const T* weight, Index channels, const Blocks& blocks, Index block, const std::int32_t* members,
                    Index count, Index rows, T* to) {
    const Index width = blocks.width(block);
    const Index real = blocks.real(block);
    for (Index i = 0; i < count; ++i, to += width) {
        std::copy_n(weight + members[i] * channels + blocks.first(block), real, to);
        std::fill(to + real, to + width, T(0));
    }
    std::fill_n(to, (rows - count) * width, T(0));
}

}  // namespace brainkit
