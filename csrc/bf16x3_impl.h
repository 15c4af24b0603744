// The kernels of bf16x3, templates over a policy for tiles. As with other instruction sets, each file that includes
// this is compiled with its own flags: everything is local to it, and no inline function of the standard library is
// used.
//
// A policy has eight tile registers of 16 rows of 64 bytes:
//   begin(), end()        around everything else, on the same thread
//   zero<N>(), load<N>(from, stride), store<N>(to, stride)    strides in bytes
//   multiply<C, A, B>()   C[i][j] += sum_k A[i][k] * B[k / 2][2 * j + k % 2]
#pragma once

#include <cstring>

#include "bf16x3.h"

namespace brainkit {
namespace {

inline std::uint32_t bits_of(float number) {
    std::uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
}

inline float number_of(std::uint32_t bits) {
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

// Bits of the nearest bfloat16 (ties to even) followed by zeros; NaN stays NaN.
inline std::uint32_t round_to_bf16(std::uint32_t bits) {
    const std::uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
    return ((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x00400000 : rounded) & 0xffff0000;
}

// The low part of an infinite number is NaN, and so are products with it.
inline std::uint32_t low_of(float x, std::uint32_t high) { return round_to_bf16(bits_of(x - number_of(high))); }

template <bool WithFactor>
void split_rows(const Split& step) {
    for (Index i = 0; i < step.rows; ++i) {
        const float* from = step.from + i * step.from_stride;
        Bf16* high = step.to.high + i * step.to_stride;
        Bf16* low = step.to.low + i * step.to_stride;
        for (Index j = 0; j < step.columns; ++j) {
            const float x = WithFactor ? from[j] * step.factor[j] : from[j];
            const std::uint32_t top = round_to_bf16(bits_of(x));
            high[j] = static_cast<Bf16>(top >> 16);
            low[j] = static_cast<Bf16>(low_of(x, top) >> 16);
        }
    }
}

template <bool WithFactor>
void split_row_pairs(const Split& step) {
    for (Index i = 0; i < step.rows; i += 2) {
        const float* even = step.from + i * step.from_stride;
        const float* odd = even + step.from_stride;
        Bf16* high = step.to.high + i / 2 * step.to_stride;
        Bf16* low = step.to.low + i / 2 * step.to_stride;
        for (Index j = 0; j < step.columns; ++j) {
            const float x = WithFactor ? even[j] * step.factor[j] : even[j];
            const float y = WithFactor ? odd[j] * step.factor[j] : odd[j];
            const std::uint32_t x_top = round_to_bf16(bits_of(x));
            const std::uint32_t y_top = round_to_bf16(bits_of(y));
            high[2 * j] = static_cast<Bf16>(x_top >> 16);
            high[2 * j + 1] = static_cast<Bf16>(y_top >> 16);
            low[2 * j] = static_cast<Bf16>(low_of(x, x_top) >> 16);
            low[2 * j + 1] = static_cast<Bf16>(low_of(y, y_top) >> 16);
        }
    }
}

void split_kernel(const Split& step) { step.factor == nullptr ? split_rows<false>(step) : split_rows<true>(step); }

void split_pairs_kernel(const Split& step) {
    step.factor == nullptr ? split_row_pairs<false>(step) : split_row_pairs<true>(step);
}

void mix_kernel(const Mix& step) {
    for (Index i = 0; i < step.rows; ++i) {
        const float* s = step.s + i * step.columns;
        float* mixed = step.mixed + i * step.columns;
        for (Index v = 0; v < step.columns; ++v) mixed[v] += step.share[v] * s[v];
        if (step.grad == nullptr) continue;
        const float* grad = step.grad + i * step.columns;
        for (Index v = 0; v < step.columns; ++v) step.grad_share[v] += grad[v] * s[v];
    }
}

// Registers: sums in 0 to 3, the first factor in 4 and 5, the second in 6 and 7.
template <typename Tiles, int R, int C>
void multiply_registers() {
    Tiles::template multiply<0, 4, 6>();
    if constexpr (C == 2) Tiles::template multiply<1, 4, 7>();
    if constexpr (R == 2) Tiles::template multiply<2, 5, 6>();
    if constexpr (R == 2 && C == 2) Tiles::template multiply<3, 5, 7>();
}

template <typename Tiles, int R>
void load_first(const Bf16* a, Index stride) {
    const Index bytes = stride * static_cast<Index>(sizeof(Bf16));
    Tiles::template load<4>(a, bytes);
    if constexpr (R == 2) Tiles::template load<5>(a + kTileSide * stride, bytes);
}

template <typename Tiles, int C>
void load_second(const Bf16* b, Index stride) {
    const Index bytes = stride * static_cast<Index>(sizeof(Bf16));
    Tiles::template load<6>(b, bytes);
    if constexpr (C == 2) Tiles::template load<7>(b + 2 * kTileSide, bytes);
}

// R by C tiles of the result, at row i and column j.
template <typename Tiles, int R, int C>
void multiply_block(const Product& step, Index i, Index j) {
    float* out = step.out + i * step.out_stride + j;
    float* below = out + kTileSide * step.out_stride;
    const Index bytes = step.out_stride * static_cast<Index>(sizeof(float));
    if (step.add) {
        Tiles::template load<0>(out, bytes);
        if constexpr (C == 2) Tiles::template load<1>(out + kTileSide, bytes);
        if constexpr (R == 2) Tiles::template load<2>(below, bytes);
        if constexpr (R == 2 && C == 2) Tiles::template load<3>(below + kTileSide, bytes);
    } else {
        Tiles::template zero<0>();
        if constexpr (C == 2) Tiles::template zero<1>();
        if constexpr (R == 2) Tiles::template zero<2>();
        if constexpr (R == 2 && C == 2) Tiles::template zero<3>();
    }
    for (Index k = 0; k < step.depth; k += kTileDepth) {
        const Index a = i * step.a_stride + k;
        const Index b = k / 2 * step.b_stride + 2 * j;
        load_first<Tiles, R>(step.a.high + a, step.a_stride);
        load_second<Tiles, C>(step.b.low + b, step.b_stride);
        multiply_registers<Tiles, R, C>();
        load_second<Tiles, C>(step.b.high + b, step.b_stride);
        multiply_registers<Tiles, R, C>();
        load_first<Tiles, R>(step.a.low + a, step.a_stride);
        multiply_registers<Tiles, R, C>();
    }
    Tiles::template store<0>(out, bytes);
    if constexpr (C == 2) Tiles::template store<1>(out + kTileSide, bytes);
    if constexpr (R == 2) Tiles::template store<2>(below, bytes);
    if constexpr (R == 2 && C == 2) Tiles::template store<3>(below + kTileSide, bytes);
}

template <typename Tiles, int R>
void multiply_rows(const Product& step, Index i) {
    Index j = 0;
    for (; j + 2 * kTileSide <= step.columns; j += 2 * kTileSide) multiply_block<Tiles, R, 2>(step, i, j);
    if (j < step.columns) multiply_block<Tiles, R, 1>(step, i, j);
}

template <typename Tiles>
void multiply_kernel(const Product& step) {
    Tiles::begin();
    Index i = 0;
    for (; i + 2 * kTileSide <= step.rows; i += 2 * kTileSide) multiply_rows<Tiles, 2>(step, i);
    if (i < step.rows) multiply_rows<Tiles, 1>(step, i);
    Tiles::end();
}

template <typename Tiles>
Bf16x3Kernels make_bf16x3_kernels(const char* name) {
    return {name, multiply_kernel<Tiles>, split_kernel, split_pairs_kernel, mix_kernel};
}

}  // namespace
}  // namespace brainkit
