#include "plan.h"

#include <cmath>
#include <utility>

#include "pool.h"

namespace brainkit {
namespace {

constexpr Index kNotFinite = -2;
constexpr Index kPart = 8192;  // vertices per item

// Cell of the tap before `position`, clamped to [-1, size - 1] before conversion to an integer.
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

template <typename T>
bool is_inside(const Shape& s, const T* location) {
    return reaches_image(to_grid(location[0], s.width), s.width) &&
           reaches_image(to_grid(location[1], s.height), s.height);
}

// Stable counting sort of 0 .. n - 1 by bucket: starts (buckets + 1,), order (n,). Buckets are replaced by positions in
// the order.
void sort_by_bucket(std::vector<std::int32_t>& bucket, Index buckets, std::int32_t* order, Index* starts) {
    const Index n = static_cast<Index>(bucket.size());
    std::fill_n(starts, buckets + 1, 0);
    for (Index v = 0; v < n; ++v) ++starts[bucket[v] + 1];
    for (Index g = 0; g < buckets; ++g) starts[g + 1] += starts[g];
    std::vector<Index> place(starts, starts + buckets);
    for (Index v = 0; v < n; ++v) {
        const Index at = place[bucket[v]]++;
        order[at] = static_cast<std::int32_t>(v);
        bucket[v] = static_cast<std::int32_t>(at);
    }
}

// Each vertex's bucket is computed once, so that counts and positions agree even if the caller's other threads change
// the locations meanwhile.
template <typename BucketOf>
std::vector<std::int32_t> buckets_of(Index vertices, int threads, BucketOf bucket_of) {
    std::vector<std::int32_t> bucket(static_cast<std::size_t>(vertices));
    for_each((vertices + kPart - 1) / kPart, threads, [&](Index part) {
        const Index end = std::min(vertices, (part + 1) * kPart);
        for (Index v = part * kPart; v < end; ++v) bucket[v] = static_cast<std::int32_t>(bucket_of(v));
    });
    return bucket;
}

}  // namespace

// Tiles are cut by vertex count, because at initialisation every vertex lies in one group.
template <typename T>
Plan make_plan(const Shape& s, const T* locations, Index most, int threads) {
    const Index groups = group_count(s.height, s.width);
    // Two more buckets follow the groups: no tap in the image, and not finite.
    std::vector<std::int32_t> bucket = buckets_of(s.vertices, threads, [&](Index v) {
        const T* location = locations + 2 * v;
        const Index group = group_of(location, s.height, s.width);
        return group == kNotFinite ? groups + 1 : is_inside(s, location) ? group : groups;
    });
    Plan plan;
    plan.members.resize(bucket.size());
    std::vector<Index> starts(static_cast<std::size_t>(groups + 3));
    sort_by_bucket(bucket, groups + 2, plan.members.data(), starts.data());
    for (Index g = 0; g <= groups; ++g) {
        if (g < groups && g % (s.width + 1) == 0) plan.row_tiles.push_back(static_cast<Index>(plan.tiles.size()));
        for (Index at = starts[g]; at < starts[g + 1]; at += most) {
            plan.tiles.push_back({g < groups ? g : kOutside, at, std::min(most, starts[g + 1] - at)});
        }
    }
    plan.row_tiles.push_back(static_cast<Index>(plan.tiles.size()));
    plan.not_finite.assign(plan.members.begin() + starts[groups + 1], plan.members.end());
    plan.members.resize(static_cast<std::size_t>(starts[groups + 1]));
    plan.places = std::move(bucket);
    return plan;
}

Taps taps_of(Index group, Index height, Index width) {
    Taps taps;
    if (group == kOutside) return taps;
    taps.row = group / (width + 1) - 1;
    taps.column = group % (width + 1) - 1;
    for (int corner = 0; corner < 4; ++corner) {
        const Index y = taps.row + (corner >> 1);
        const Index x = taps.column + (corner & 1);
        if (y < 0 || y >= height || x < 0 || x >= width) continue;
        taps.cell[taps.count] = y * width + x;
        taps.corner[taps.count++] = corner;
    }
    return taps;
}

template <typename T>
void group_vertices(const T* locations, Index vertices, Index height, Index width, std::int32_t* order, Index* starts) {
    const Index groups = group_count(height, width);
    std::vector<std::int32_t> bucket = buckets_of(vertices, 1, [&](Index v) {
        const Index group = group_of(locations + 2 * v, height, width);
        return group == kNotFinite ? groups : group;
    });
    std::vector<Index> all(static_cast<std::size_t>(groups + 2));
    sort_by_bucket(bucket, groups + 1, order, all.data());
    std::copy_n(all.begin(), groups + 1, starts);
}

template Plan make_plan(const Shape&, const float*, Index, int);
template Plan make_plan(const Shape&, const double*, Index, int);
template void group_vertices(const float*, Index, Index, Index, std::int32_t*, Index*);
template void group_vertices(const double*, Index, Index, Index, std::int32_t*, Index*);

}  // namespace brainkit
