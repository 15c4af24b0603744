// Vertices sorted by tap cell and cut into tiles; coefficients of each vertex's taps; channels cut into blocks.
#pragma once

#include <algorithm>
#include <vector>

#include "buffer.h"
#include "factor_readout.h"
#include "kernels.h"

namespace brainkit {

constexpr Index kSegments = 5;  // the global token and four taps
constexpr Index kOutside = -1;  // the "group" of vertices that are finite, but have no tap in the image

// Vertices of one group.
struct Tile {
    Index group;  // or kOutside
    Index begin;  // into Plan::members
    Index count;
};

struct Plan {
    std::vector<std::int32_t> members;  // finite vertices, sorted by group
    std::vector<std::int32_t> places;   // index of each vertex in members; those that are not finite come last
    std::vector<Tile> tiles;
    // Row r of groups, whose upper taps lie in row r - 1 of the grid, has the tiles row_tiles[r] .. row_tiles[r + 1] -
    // 1. The last row, H, includes the tiles of vertices outside the image.
    std::vector<Index> row_tiles;
    std::vector<std::int32_t> not_finite;
};

// Tiles hold at most `most` vertices.
template <typename T>
Plan make_plan(const Shape& shape, const T* locations, Index most, int threads);

// The tap cells of a group that lie in the image; `corner` tells which of the four each is (bit 0 right, bit 1 lower).
struct Taps {
    Index row = 0, column = 0;  // of the upper left tap, from -1 on
    Index count = 0;
    Index cell[4];
    int corner[4];
};

Taps taps_of(Index group, Index height, Index width);

// Grid coordinate of a location in [-1, 1], with grid_sample's align_corners=False.
template <typename T>
T to_grid(T location, Index size) {
    return ((location + T(1)) * static_cast<T>(size) - T(1)) / T(2);
}

// Position of a location between its taps, from 0 to 1.
template <typename T>
struct Place {
    T x, y;
};

template <typename T>
Place<T> place_of(const Shape& s, const Taps& taps, const T* location) {
    return {to_grid(location[0], s.width) - static_cast<T>(taps.column),
            to_grid(location[1], s.height) - static_cast<T>(taps.row)};
}

template <typename T>
T bilinear_weight(const Place<T>& place, int corner) {
    return ((corner & 1) ? place.x : T(1) - place.x) * ((corner >> 1) ? place.y : T(1) - place.y);
}

// Shares of the global token, then of the taps: (1 + taps.count,).
template <typename T>
void fill_shares(const Shape& s, const Taps& taps, const T* location, T scale, T* shares) {
    shares[0] = scale;
    if (taps.count == 0) return;
    const Place<T> place = place_of(s, taps, location);
    for (Index t = 0; t < taps.count; ++t) shares[1 + t] = (T(1) - scale) * bilinear_weight(place, taps.corner[t]);
}

// Channels in blocks of at most `most` vectors, as even as possible, because narrow blocks are slow.
class Blocks {
  public:
    Blocks(Index channels, Index lanes, Index most)
        : channels_(channels), lanes_(lanes), vectors_((channels + lanes - 1) / lanes) {
        count_ = (vectors_ + most - 1) / most;
    }
    Index count() const { return count_; }
    Index padded() const { return vectors_ * lanes_; }
    Index vectors(Index block) const { return (block + 1) * vectors_ / count_ - block * vectors_ / count_; }
    Index width(Index block) const { return vectors(block) * lanes_; }
    // First channel of a block, and the number of its channels without padding.
    Index first(Index block) const { return block * vectors_ / count_ * lanes_; }
    Index real(Index block) const { return std::min(width(block), channels_ - first(block)); }
    Index widest() const { return (vectors_ + count_ - 1) / count_ * lanes_; }

  private:
    Index channels_, lanes_, vectors_, count_;
};

inline Index round_up(Index n, Index step) { return (n + step - 1) / step * step; }

}  // namespace brainkit
