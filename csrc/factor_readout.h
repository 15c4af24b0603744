// The FactorTopy operator on raw pointers: no Python, no torch.
//
// Axes: B images, L layers, D bottleneck channels, H x W token grid, V vertices. All arrays are C-contiguous.
//
//   z[b,v,:] = (1 - a_v) * sum_l omega[v,l] * bilinear(T_local[b,l], x_v) + a_v * sum_l omega[v,l] * T_global[b,l]
//   y[b,v]   = bias_v + (1/D) * sum_d W[v,d] * z[b,v,d]
//
// `bilinear` is PyTorch's grid_sample(mode="bilinear", padding_mode="zeros", align_corners=False). Its corner cases:
//   - a tap outside the image is skipped, not multiplied by zero, so a NaN token there reaches nobody;
//   - a tap inside the image is multiplied even where its weight is exactly zero, so a NaN token on it gives NaN;
//   - a location that is NaN or infinite gives NaN for its vertex alone.
#pragma once

#include <cstdint>

namespace brainkit {

// Largest height or width of a token grid. Far above any network's; it bounds the number of groups.
inline constexpr std::int64_t kMaxGrid = 4096;

struct Shape {
    std::int64_t images;    // B, may be 0
    std::int64_t layers;    // L >= 1
    std::int64_t channels;  // D >= 1
    std::int64_t height;    // 1 <= H <= kMaxGrid
    std::int64_t width;     // 1 <= W <= kMaxGrid
    std::int64_t vertices;  // V, may be 0, at most 2^31 - 1
};

// Vertices whose four taps are the same cells form a group: there are (H + 1) * (W + 1), row-major in the cell of the
// upper left tap, which runs from -1 to H - 1 and W - 1 (clamped there for locations farther out).
inline std::int64_t group_count(std::int64_t height, std::int64_t width) { return (height + 1) * (width + 1); }

// Stable counting sort of vertices by group.
//
// locations (V, 2): x right and y down, [-1, 1] spans the image.
// order (V,): group g holds the vertices order[starts[g]] .. order[starts[g + 1] - 1], each group in ascending order.
//             After the last group, from order[starts[G]] on, come the vertices whose location is not finite.
// starts (G + 1,)
template <typename T>
void group_vertices(const T* locations, std::int64_t vertices, std::int64_t height, std::int64_t width,
                    std::int32_t* order, std::int64_t* starts);

template <typename T>
struct Inputs {
    const T* local;          // (B, L, D, H, W)
    const T* global;         // (B, L, D)
    const T* locations;      // (V, 2)
    const T* layer_weights;  // (V, L)
    const T* scale;          // (V,)
    const T* weight;         // (V, D)
    const T* bias;           // (V,)
};

// out (B, V). The same bits come out for every number of threads (>= 1).
template <typename T>
void factor_readout_forward(const Shape& shape, const Inputs<T>& inputs, int threads, T* out);

}  // namespace brainkit
