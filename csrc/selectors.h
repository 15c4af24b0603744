// The three networks that select location, layers and scale of every vertex, on raw pointers: no Python, no torch.
//
// Axes: V vertices, F features, H hidden units, L layers. All arrays are C-contiguous. Network 0 chooses the location
// (2 outputs, tanh), network 1 the layers (L outputs, softmax), network 2 the scale (1 output, sigmoid):
//
//   outputs[v] = choice(head @ gelu(second_weight @ gelu(hidden_weight @ features[v] + hidden_bias) + second_bias))
//
// with the exact (erf) GELU. NaN or infinite features affect the outputs of their vertex only.
#pragma once

#include "factor_readout.h"

namespace brainkit {

inline constexpr Index kNetworks = 3;

struct NetworkShape {
    Index vertices;  // V, may be 0
    Index features;  // F >= 1
    Index hidden;    // H >= 1
    Index layers;    // L >= 1

    Index outputs(Index network) const { return network == 0 ? 2 : network == 1 ? layers : 1; }
};

// Length of a row of what the forward pass can keep for the backward pass: H, padded to whole vectors of any width.
inline Index kept_width(Index hidden) { return (hidden + 15) / 16 * 16; }

template <typename T>
struct NetworkInputs {
    const T* features;       // (V, F)
    const T* hidden_weight;  // (3, H, F)
    const T* hidden_bias;    // (3, H)
    const T* second_weight;  // (3, H, H)
    const T* second_bias;    // (3, H)
    const T* head[3];        // (outputs, H) each
};

// out: locations (V, 2), layer weights (V, L), scale (V,). kept (3, V, 2, kept_width(H)): the inputs of the two GELUs,
// aligned to 64 bytes, or null. The same bits for every number of threads (>= 1), with kept or without.
template <typename T>
void selector_networks_forward(const NetworkShape& shape, const NetworkInputs<T>& inputs, int threads,
                               T* const (&out)[3], T* kept);

// One for each of the inputs but the features, in its shape.
template <typename T>
struct NetworkGradients {
    T* hidden_weight;
    T* hidden_bias;
    T* second_weight;
    T* second_bias;
    T* head[3];
};

// Gradients of sum(grad * out) over the three outputs. kept is the forward pass's, or null: then it is recomputed. The
// same bits in both cases, and for every number of threads (>= 1).
template <typename T>
void selector_networks_backward(const NetworkShape& shape, const NetworkInputs<T>& inputs, const T* const (&out)[3],
                                const T* const (&grad)[3], const T* kept, int threads, const NetworkGradients<T>& to);

}  // namespace brainkit
