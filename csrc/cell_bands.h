// Gradients of a large grid's tokens are summed in bands of cells, so that they stay in the cache.
#pragma once

#include "plan.h"
#include "pool.h"

namespace brainkit {

// Rows of cells, cut as evenly as possible. The cut must not depend on the number of threads, because the global
// tokens' gradients are summed over bands.
class CellBands {
  public:
    // At most `most` rows per band, but not narrow bands: vertices between two bands are read for both.
    CellBands(Index height, Index most) : height_(height) {
        const Index count = (height + std::max<Index>(4, most) - 1) / std::max<Index>(4, most);
        rows_ = (height + count - 1) / count;
    }

    Index count() const { return (height_ + rows_ - 1) / rows_; }
    Index rows() const { return rows_; }  // of the largest band
    Index begin(Index band) const { return band * rows_; }
    Index end(Index band) const { return std::min(height_, (band + 1) * rows_); }

  private:
    Index height_, rows_;
};

// Calls run(tile, taps, first segment, segments) for every tile that contributes to a band, with its segments in the
// band: segment 0 is the global token, segment 1 + t the t-th tap.
template <typename Run>
void for_each_tile_of(const Shape& s, const Plan& plan, Index begin, Index end, Run run) {
    // Group row r has taps in the rows r - 1 and r of cells, and contributes to the global token with its upper taps.
    for (Index row = begin; row <= end; ++row) {
        const bool upper = row > begin || row == 0;
        const bool lower = row < end;
        for (Index i = plan.row_tiles[row]; i < plan.row_tiles[row + 1]; ++i) {
            const Taps taps = taps_of(plan.tiles[i].group, s.height, s.width);
            Index upper_taps = 0;
            while (upper_taps < taps.count && taps.corner[upper_taps] < 2) ++upper_taps;
            const Index first = upper ? 0 : 1 + upper_taps;
            const Index segments = (lower ? taps.count + 1 : 1 + upper_taps) - first;
            if (segments > 0) run(plan.tiles[i], taps, first, segments);
        }
    }
}

// Offset of a segment in a slab of the global token, then the cells from row `begin` on.
inline Index slab_slot(const Shape& s, const Taps& taps, Index segment, Index begin) {
    return segment == 0 ? 0 : 1 + taps.cell[segment - 1] - begin * s.width;
}

// out (B, L, D), summed over the bands' contributions (bands, B, L, D).
template <typename T>
void sum_bands(const Shape& s, const T* parts, Index bands, int threads, T* out) {
    const Index rows = s.images * s.layers;
    for_each(rows, threads, [&](Index row) {
        T* to = out + row * s.channels;
        const T* from = parts + row * s.channels;
        std::copy_n(from, s.channels, to);
        for (Index band = 1; band < bands; ++band) {
            from += rows * s.channels;
            for (Index d = 0; d < s.channels; ++d) to[d] += from[d];
        }
    });
}

}  // namespace brainkit
