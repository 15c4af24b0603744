// Large grids are processed in bands of rows, so that their tokens stay in the cache.
#pragma once

#include <algorithm>

#include "plan.h"
#include "pool.h"

namespace brainkit {

// A band is some rows of groups, with the rows of cells that its groups read. The last of these is the next band's
// first: it is kept, and the following rows overwrite the others.
class Bands {
  public:
    // Tokens packed at a time. All tokens of a large grid would not fit in the cache.
    static constexpr Index kBytes = 12 << 20;

    // Rows of groups per band, so that its cells stay within the limit: all of them, or at least four, because every
    // band except the first has one more row of cells.
    Bands(const Shape& s, Index cell_bytes) : height_(s.height), width_(s.width) {
        const Index row_bytes = std::max<Index>(1, s.width * cell_bytes);
        step_ = s.height * row_bytes <= kBytes ? s.height + 1 : std::max<Index>(4, kBytes / row_bytes - 1);
        held_ = std::min(s.height, step_ + 1);
    }

    Index count() const { return (height_ + step_) / step_; }
    // First row of groups of a band; its last is first_row(band + 1) - 1.
    Index first_row(Index band) const { return std::min(band * step_, height_ + 1); }

    // Slots for cells, then one for the global token.
    Index slots() const { return held_ * width_ + 1; }
    Index slot(Index cell) const { return cell / width_ % held_ * width_ + cell % width_; }
    Index global_slot() const { return held_ * width_; }

    // Calls move(first cell, cells, first slot) for each contiguous piece of new cells of a band.
    template <typename Move>
    void for_each_piece(Index band, Move move) const {
        const Index end = std::min(first_row(band + 1), height_);
        for (Index row = first_row(band); row < end;) {
            const Index rows = std::min(end - row, held_ - row % held_);
            move(row * width_, rows * width_, row % held_ * width_);
            row += rows;
        }
    }

  private:
    Index height_, width_;
    Index step_;  // rows of groups
    Index held_;  // rows of cells
};

// Calls pack(band) for one band after the other, and run(tile, scratch) for the tiles of each.
template <typename Pack, typename MakeScratch, typename Run>
void for_each_tile(const Plan& plan, const Bands& bands, int threads, Pack pack, MakeScratch make_scratch, Run run) {
    constexpr Index kTogether = 4;  // tiles a thread takes at a time: neighbours share their tokens
    for (Index band = 0; band < bands.count(); ++band) {
        pack(band);
        const Index begin = plan.row_tiles[bands.first_row(band)];
        const Index end = plan.row_tiles[bands.first_row(band + 1)];
        for_each((end - begin + kTogether - 1) / kTogether, threads, make_scratch, [&](Index item, auto& scratch) {
            const Index first = begin + item * kTogether;
            const Index last = std::min(end, first + kTogether);
            for (Index tile = first; tile < last; ++tile) run(plan.tiles[tile], scratch);
        });
    }
}

}  // namespace brainkit
