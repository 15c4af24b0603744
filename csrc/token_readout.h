// The readout with the selectors folded into coefficients, as in an encoder file.
#pragma once

#include <cstdint>

#include "factor_readout.h"

namespace brainkit {

constexpr Index kTaps = 5;  // four cells and the global token

struct TokenShape {
    Index images;    // B, may be 0
    Index layers;    // L >= 1
    Index channels;  // D >= 1
    Index cells;     // P + 1 >= 1: the grid's, and the global token
    Index rows;      // n, may be 0, at most 2^31 - 1
    Index groups;    // G
};

// All arrays are C-contiguous. Rows that read the same cells form a group, and are contiguous.
template <typename T>
struct TokenInputs {
    const T* tokens;        // (B, L, D, P + 1)
    const T* weight;        // (n, D)
    const T* coefficients;  // (n, 5, L)
    const T* bias;          // (n,)
    const Index* taps;      // (G, 5), each in 0 .. P
    const Index* starts;    // (G + 1,): group g holds the rows starts[g] .. starts[g + 1] - 1
};

//   out[b,i] = bias[i] + sum_k sum_l coefficients[i,k,l] * sum_d weight[i,d] * tokens[b,l,d,taps[g(i),k]]
//
// out (B, n). Cells are multiplied even if their coefficient is zero, so a NaN token gives NaN. The same bits for every
// number of threads (>= 1).
template <typename T>
void token_readout(const TokenShape& shape, const TokenInputs<T>& inputs, int threads, T* out);

}  // namespace brainkit
