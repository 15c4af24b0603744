// Products of floats as three products of bfloat16: with x = high + low, both rounded to bfloat16,
//   a * b ~ a.high * b.low + a.high * b.high + a.low * b.high
// summed in float32. Matrices are stored as two planes, high and low, and multiplied in tiles, on AMX hardware.
#pragma once

#include <cstdint>

#include "factor_readout.h"

namespace brainkit {

using Bf16 = std::uint16_t;  // the upper half of a float

// Sizes of a tile. Rows and columns are padded to kTileSide, the summed dimension to kTileDepth.
constexpr Index kTileSide = 16;
constexpr Index kTileDepth = 32;

struct Planes {
    Bf16 *high, *low;
};

// out[i][j] = sum_k a[i][k] * b[k][j], or += that.
struct Product {
    Planes a;        // (rows, a_stride)
    Index a_stride;  // of numbers
    Planes b;        // (depth / 2, b_stride): rows 2k and 2k + 1 interleaved, 2 * columns numbers
    Index b_stride;
    float* out;  // (rows, out_stride)
    Index out_stride;
    Index rows, columns, depth;  // in whole tiles
    bool add;
};

// (rows, columns) in two planes, times a factor for each column, which may be null.
struct Split {
    const float* from;
    Index from_stride;
    const float* factor;
    Index rows, columns;
    Planes to;
    Index to_stride;  // of numbers
};

// Vertices lie in columns. For every row i and column v:
//   mixed[i][v] += share[v] * s[i][v]
//   grad_share[v] += grad[i][v] * s[i][v], unless grad is null
struct Mix {
    const float* s;
    const float* share;
    const float* grad;
    Index rows, columns;  // columns are the stride of all
    float* mixed;
    float* grad_share;
};

struct Bf16x3Kernels {
    const char* name;
    void (*multiply)(const Product&);
    void (*split)(const Split&);
    // For the second factor of a product: row k interleaves rows 2k (even positions) and 2k + 1 (odd positions).
    void (*split_pairs)(const Split&);
    void (*mix)(const Mix&);
};

// Throws std::runtime_error if bf16x3 cannot run.
const Bf16x3Kernels& bf16x3_kernels();

// Null if the compiler had no AMX.
const Bf16x3Kernels* amx_kernels();
// The same arithmetic, bit for bit, in plain C++, slowly: for tests.
const Bf16x3Kernels& emulated_kernels();

}  // namespace brainkit
