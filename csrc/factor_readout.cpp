#include "factor_readout.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

// The inner product is compiled several times and the processor's best version is chosen when the library is loaded,
// where CMake finds that compiler and C library can do that. Elsewhere there is the one portable version.
#if defined(BRAINKIT_TARGET_CLONES)
#define BRAINKIT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define BRAINKIT_CLONES
#endif
#if defined(_MSC_VER)
#define BRAINKIT_INLINE __forceinline
#else
#define BRAINKIT_INLINE inline __attribute__((always_inline))
#endif

namespace brainkit {
namespace {

using Index = std::int64_t;

constexpr Index kLanes = 16;    // channels a micro-kernel step handles; D is padded to a multiple with zeros
constexpr Index kStrip = 8;     // vertices a micro-kernel step handles
constexpr Index kTile = 48;     // vertices a thread takes at a time, all of one group; a multiple of kStrip
constexpr Index kSegments = 5;  // four taps and the global token

constexpr Index kOutside = -1;    // finite, but all four taps lie outside the image
constexpr Index kNotFinite = -2;  // NaN or infinite

// Grid coordinate of a location in [-1, 1], with grid_sample's align_corners=False.
template <typename T>
T to_grid(T location, Index size) {
    return ((location + T(1)) * static_cast<T>(size) - T(1)) / T(2);
}

// Cell of the tap before `position`, clamped to [-1, size - 1] while it still is a floating-point number.
template <typename T>
Index first_tap(T position, Index size) {
    return static_cast<Index>(std::min(std::max(std::floor(position), T(-1)), static_cast<T>(size - 1)));
}

template <typename T>
bool reaches_image(T position, Index size) {
    return position >= T(-1) && position < static_cast<T>(size);
}

template <typename T>
Index group_of(const T* location, Index height, Index width) {
    if (!std::isfinite(location[0]) || !std::isfinite(location[1])) return kNotFinite;
    const Index column = first_tap(to_grid(location[0], width), width);
    const Index row = first_tap(to_grid(location[1], height), height);
    return (row + 1) * (width + 1) + column + 1;
}

// Runs work(item, scratch) for every item on up to `threads` threads, this one included. Who takes which item is left
// to chance: items must not depend on one another. The first exception is rethrown here.
template <typename MakeScratch, typename Work>
void for_each(Index items, int threads, MakeScratch make_scratch, Work work) {
    std::atomic<Index> next{0};
    std::exception_ptr error;
    std::mutex error_lock;
    auto run = [&] {
        try {
            auto scratch = make_scratch();
            for (Index item; (item = next.fetch_add(1)) < items;) work(item, scratch);
        } catch (...) {
            next = items;
            const std::lock_guard<std::mutex> guard(error_lock);
            if (!error) error = std::current_exception();
        }
    };
    std::vector<std::thread> helpers;
    const Index wanted = std::min<Index>(threads, items) - 1;
    helpers.reserve(static_cast<std::size_t>(std::max<Index>(wanted, 0)));
    try {
        for (Index i = 0; i < wanted; ++i) helpers.emplace_back(run);
    } catch (const std::system_error&) {
        // The system gives no more threads: those there are do all the work.
    }
    run();
    for (std::thread& helper : helpers) helper.join();
    if (error) std::rethrow_exception(error);
}

// Vertices of one group, at most kTile of them.
struct Tile {
    Index group;  // or kOutside
    Index begin;  // into Plan::members
    Index count;
};

struct Plan {
    std::vector<std::int32_t> members;
    std::vector<Tile> tiles;
    std::vector<std::int32_t> not_finite;
};

// Tiles are cut by vertex count, because at initialisation every vertex lies in one group.
void cut_tiles(Plan& plan, Index group, Index begin, Index end) {
    for (Index at = begin; at < end; at += kTile) plan.tiles.push_back({group, at, std::min(kTile, end - at)});
}

template <typename T>
Plan make_plan(const Shape& shape, const T* locations) {
    const Index groups = group_count(shape.height, shape.width);
    std::vector<std::int32_t> order(static_cast<std::size_t>(shape.vertices));
    std::vector<Index> starts(static_cast<std::size_t>(groups + 1));
    group_vertices(locations, shape.vertices, shape.height, shape.width, order.data(), starts.data());

    Plan plan;
    plan.members.reserve(order.size());
    std::vector<std::int32_t> outside;
    for (Index group = 0; group < groups; ++group) {
        const Index begin = static_cast<Index>(plan.members.size());
        for (Index i = starts[group]; i < starts[group + 1]; ++i) {
            const T* location = locations + 2 * order[i];
            const bool inside = reaches_image(to_grid(location[0], shape.width), shape.width) &&
                                reaches_image(to_grid(location[1], shape.height), shape.height);
            (inside ? plan.members : outside).push_back(order[i]);
        }
        cut_tiles(plan, group, begin, static_cast<Index>(plan.members.size()));
    }
    const Index begin = static_cast<Index>(plan.members.size());
    plan.members.insert(plan.members.end(), outside.begin(), outside.end());
    cut_tiles(plan, kOutside, begin, static_cast<Index>(plan.members.size()));
    plan.not_finite.assign(order.begin() + starts[groups], order.end());
    return plan;
}

// Tokens as [image][channel block][cell][layer][kLanes]: what one micro-kernel call reads lies together. The cell
// after the last of the grid is the global token.
template <typename T>
std::vector<T> pack_tokens(const Shape& s, const Inputs<T>& in, Index blocks, int threads) {
    const Index cells = s.height * s.width;
    const Index slab = (cells + 1) * s.layers * kLanes;
    std::vector<T> packed(static_cast<std::size_t>(s.images * blocks * slab));
    for_each(
        s.images * blocks, threads, [] { return 0; },
        [&](Index item, int) {
            const Index image = item / blocks;
            const Index channel = item % blocks * kLanes;
            const Index lanes = std::min(kLanes, s.channels - channel);
            T* to = packed.data() + item * slab;
            for (Index layer = 0; layer < s.layers; ++layer) {
                const Index row = (image * s.layers + layer) * s.channels + channel;
                for (Index lane = 0; lane < lanes; ++lane) {
                    const T* from = in.local + (row + lane) * cells;
                    for (Index cell = 0; cell < cells; ++cell)
                        to[(cell * s.layers + layer) * kLanes + lane] = from[cell];
                    to[(cells * s.layers + layer) * kLanes + lane] = in.global[row + lane];
                }
            }
        });
    return packed;
}

// The tap cells of a group that lie in the image; `corner` says which of the four each is (bit 0 right, bit 1 lower).
struct Taps {
    Index count = 0;
    Index cell[4];
    int corner[4];
};

Taps taps_of(Index group, Index height, Index width) {
    Taps taps;
    if (group == kOutside) return taps;
    const Index row = group / (width + 1) - 1;
    const Index column = group % (width + 1) - 1;
    for (int corner = 0; corner < 4; ++corner) {
        const Index y = row + (corner >> 1);
        const Index x = column + (corner & 1);
        if (y < 0 || y >= height || x < 0 || x >= width) continue;
        taps.cell[taps.count] = y * width + x;
        taps.corner[taps.count++] = corner;
    }
    return taps;
}

// kLanes numbers that the compiler keeps in vector registers, as wide as the target has them.
#if defined(__GNUC__)
template <typename T>
struct Lanes {
    typedef T type __attribute__((vector_size(kLanes * sizeof(T)), aligned(alignof(T)), may_alias));
};
#else
template <typename T>
struct Lanes {
    struct type {
        T value[kLanes];
        friend type operator*(T a, const type& b) {
            type c;
            for (Index i = 0; i < kLanes; ++i) c.value[i] = a * b.value[i];
            return c;
        }
        friend type operator*(const type& a, const type& b) {
            type c;
            for (Index i = 0; i < kLanes; ++i) c.value[i] = a.value[i] * b.value[i];
            return c;
        }
        type& operator+=(const type& b) {
            for (Index i = 0; i < kLanes; ++i) value[i] += b.value[i];
            return *this;
        }
    };
};
#endif

// For kStrip vertices and kLanes channels: sums[i] += w[i] * sum_k coefficients[k][i] * tokens[k].
// segment[s] points at `layers` rows of kLanes tokens; coefficients run over segments, then layers.
template <typename T>
BRAINKIT_INLINE void strip_product(const T* const* segment, Index segments, Index layers, const T* coefficients,
                                   const T* w, Index w_stride, T* sums) {
    using Vector = typename Lanes<T>::type;
    Vector z0{}, z1{}, z2{}, z3{}, z4{}, z5{}, z6{}, z7{};
    for (Index s = 0; s < segments; ++s) {
        const T* tokens = segment[s];
        for (Index layer = 0; layer < layers; ++layer, tokens += kLanes, coefficients += kStrip) {
            const Vector t = *reinterpret_cast<const Vector*>(tokens);
            z0 += coefficients[0] * t;
            z1 += coefficients[1] * t;
            z2 += coefficients[2] * t;
            z3 += coefficients[3] * t;
            z4 += coefficients[4] * t;
            z5 += coefficients[5] * t;
            z6 += coefficients[6] * t;
            z7 += coefficients[7] * t;
        }
    }
    const Vector* z[kStrip] = {&z0, &z1, &z2, &z3, &z4, &z5, &z6, &z7};
    for (Index i = 0; i < kStrip; ++i) {
        Vector& sum = *reinterpret_cast<Vector*>(sums + i * kLanes);
        sum += *reinterpret_cast<const Vector*>(w + i * w_stride) * *z[i];
    }
}

BRAINKIT_CLONES void strip(const float* const* segment, Index segments, Index layers, const float* coefficients,
                           const float* w, Index w_stride, float* sums) {
    strip_product(segment, segments, layers, coefficients, w, w_stride, sums);
}

BRAINKIT_CLONES void strip(const double* const* segment, Index segments, Index layers, const double* coefficients,
                           const double* w, Index w_stride, double* sums) {
    strip_product(segment, segments, layers, coefficients, w, w_stride, sums);
}

// What one thread needs for a tile; entries beyond the tile's vertices are zero or left over, and never read out.
template <typename T>
struct Scratch {
    std::vector<T> coefficients;  // (kTile / kStrip, segments, L, kStrip)
    std::vector<T> weight;        // (kTile, D padded)
    std::vector<T> sums;          // (kTile, kLanes)
};

template <typename T>
void fill_coefficients(const Shape& s, const Inputs<T>& in, const Tile& tile, const Taps& taps,
                       const std::int32_t* members, T* coefficients) {
    const Index rows = (taps.count + 1) * s.layers;
    for (Index i = 0; i < tile.count; ++i) {
        const Index v = members[i];
        const T a = in.scale[v];
        T* to = coefficients + (i / kStrip) * rows * kStrip + i % kStrip;
        T share[kSegments];
        if (taps.count > 0) {
            const T x = to_grid(in.locations[2 * v], s.width) - static_cast<T>(tile.group % (s.width + 1) - 1);
            const T y = to_grid(in.locations[2 * v + 1], s.height) - static_cast<T>(tile.group / (s.width + 1) - 1);
            for (Index t = 0; t < taps.count; ++t) {
                share[t] = (T(1) - a) * ((taps.corner[t] & 1) ? x : T(1) - x) * ((taps.corner[t] >> 1) ? y : T(1) - y);
            }
        }
        share[taps.count] = a;
        for (Index t = 0; t <= taps.count; ++t) {
            for (Index layer = 0; layer < s.layers; ++layer, to += kStrip) {
                *to = share[t] * in.layer_weights[v * s.layers + layer];
            }
        }
    }
}

template <typename T>
void tile_forward(const Shape& s, const Inputs<T>& in, const Tile& tile, const std::int32_t* members,
                  const std::vector<T>& packed, Index blocks, Scratch<T>& scratch, T* out) {
    const Index cells = s.height * s.width;
    const Index padded = blocks * kLanes;
    const Index row = s.layers * kLanes;
    const Taps taps = taps_of(tile.group, s.height, s.width);
    const Index strip_size = (taps.count + 1) * s.layers * kStrip;
    fill_coefficients(s, in, tile, taps, members, scratch.coefficients.data());
    for (Index i = 0; i < tile.count; ++i) {
        std::copy_n(in.weight + members[i] * s.channels, s.channels, scratch.weight.data() + i * padded);
    }
    for (Index image = 0; image < s.images; ++image) {
        std::fill(scratch.sums.begin(), scratch.sums.end(), T(0));
        for (Index block = 0; block < blocks; ++block) {
            const T* slab = packed.data() + (image * blocks + block) * (cells + 1) * row;
            const T* segment[kSegments];
            for (Index t = 0; t < taps.count; ++t) segment[t] = slab + taps.cell[t] * row;
            segment[taps.count] = slab + cells * row;
            for (Index i = 0; i < tile.count; i += kStrip) {
                strip(segment, taps.count + 1, s.layers, scratch.coefficients.data() + i / kStrip * strip_size,
                      scratch.weight.data() + i * padded + block * kLanes, padded, scratch.sums.data() + i * kLanes);
            }
        }
        for (Index i = 0; i < tile.count; ++i) {
            const T* lanes = scratch.sums.data() + i * kLanes;
            T sum = 0;
            for (Index lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
            out[image * s.vertices + members[i]] = in.bias[members[i]] + sum / static_cast<T>(s.channels);
        }
    }
}

}  // namespace

template <typename T>
void group_vertices(const T* locations, Index vertices, Index height, Index width, std::int32_t* order, Index* starts) {
    const Index groups = group_count(height, width);
    // One more bucket, after the groups, for locations that are not finite. Each vertex's bucket is computed once, so
    // that the counts and the places agree whatever the caller's other threads do to the locations.
    std::vector<std::int32_t> bucket(static_cast<std::size_t>(vertices));
    std::vector<Index> place(static_cast<std::size_t>(groups + 2), 0);
    for (Index v = 0; v < vertices; ++v) {
        const Index group = group_of(locations + 2 * v, height, width);
        bucket[v] = static_cast<std::int32_t>(group == kNotFinite ? groups : group);
        ++place[bucket[v] + 1];
    }
    for (Index g = 0; g <= groups; ++g) place[g + 1] += place[g];
    std::copy_n(place.begin(), groups + 1, starts);
    for (Index v = 0; v < vertices; ++v) order[place[bucket[v]]++] = static_cast<std::int32_t>(v);
}

template <typename T>
void factor_readout_forward(const Shape& shape, const Inputs<T>& inputs, int threads, T* out) {
    const Plan plan = make_plan(shape, inputs.locations);
    const Index blocks = (shape.channels + kLanes - 1) / kLanes;
    const std::vector<T> packed = pack_tokens(shape, inputs, blocks, threads);
    auto make_scratch = [&] {
        return Scratch<T>{std::vector<T>(static_cast<std::size_t>(kTile * kSegments * shape.layers)),
                          std::vector<T>(static_cast<std::size_t>(kTile * blocks * kLanes)),
                          std::vector<T>(static_cast<std::size_t>(kTile * kLanes))};
    };
    for_each(static_cast<Index>(plan.tiles.size()), threads, make_scratch, [&](Index item, Scratch<T>& scratch) {
        const Tile& tile = plan.tiles[item];
        tile_forward(shape, inputs, tile, plan.members.data() + tile.begin, packed, blocks, scratch, out);
    });
    for (const std::int32_t v : plan.not_finite) {
        for (Index image = 0; image < shape.images; ++image) {
            out[image * shape.vertices + v] = std::numeric_limits<T>::quiet_NaN();
        }
    }
}

template void group_vertices(const float*, Index, Index, Index, std::int32_t*, Index*);
template void group_vertices(const double*, Index, Index, Index, std::int32_t*, Index*);
template void factor_readout_forward(const Shape&, const Inputs<float>&, int, float*);
template void factor_readout_forward(const Shape&, const Inputs<double>&, int, double*);

}  // namespace brainkit
