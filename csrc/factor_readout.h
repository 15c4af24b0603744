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

using Index = std::int64_t;

// Largest height or width of a token grid, far above any network's; it bounds the number of groups.
inline constexpr Index kMaxGrid = 4096;

struct Shape {
    Index images;    // B, may be 0
    Index layers;    // L >= 1
    Index channels;  // D >= 1
    Index height;    // 1 <= H <= kMaxGrid
    Index width;     // 1 <= W <= kMaxGrid
    Index vertices;  // V, may be 0, at most 2^31 - 1
};

// Vertices whose four taps are the same cells form a group: there are (H + 1) * (W + 1), row-major in the cell of the
// upper left tap, which runs from -1 to H - 1 and W - 1 (clamped there for locations farther out).
inline Index group_count(Index height, Index width) { return (height + 1) * (width + 1); }

// Stable counting sort of vertices by group.
//
// locations (V, 2): x right and y down, [-1, 1] spans the image.
// order (V,): group g holds the vertices order[starts[g]] .. order[starts[g + 1] - 1], each group in ascending order.
//             After the last group, from order[starts[G]] on, come the vertices whose location is not finite.
// starts (G + 1,)
template <typename T>
void group_vertices(const T* locations, Index vertices, Index height, Index width, std::int32_t* order, Index* starts);

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

// out (B, V). The same bits for every number of threads (>= 1).
template <typename T>
void factor_readout_forward(const Shape& shape, const Inputs<T>& inputs, int threads, T* out);

// One for each of the inputs, in its shape.
template <typename T>
struct Gradients {
    T* local;
    T* global;
    T* locations;
    T* layer_weights;
    T* scale;
    T* weight;
    T* bias;
};

// Gradients of sum(grad * y), grad (B, V); inputs.bias is not read. A vertex whose location is not finite has zero
// gradients and contributes to none. The same bits for every number of threads (>= 1).
template <typename T>
void factor_readout_backward(const Shape& shape, const Inputs<T>& inputs, const T* grad, int threads,
                             const Gradients<T>& out);

// The same in bf16x3: numbers are split into two bfloat16, and three of their four products are summed in float32. With
// AMX this is faster, with larger errors: about 5e-6 of the result's rms, and 1e-5 of a gradient's. Infinite tokens,
// weights or gradients count as NaN. Throws std::runtime_error if why_no_bf16x3 gives a reason.
void factor_readout_forward_bf16x3(const Shape& shape, const Inputs<float>& inputs, int threads, float* out);
void factor_readout_backward_bf16x3(const Shape& shape, const Inputs<float>& inputs, const float* grad, int threads,
                                    const Gradients<float>& out);

// Why bf16x3 cannot run here, in one phrase; null if it can. With the environment variable BRAINKIT_AMX=emulate, read
// once, it runs everywhere, slowly.
const char* why_no_bf16x3();

// Name of the instruction set that this process uses: "portable", "avx2" or "avx512".
const char* instruction_set();

}  // namespace brainkit
