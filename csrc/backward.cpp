#include "sorted.h"
#include "token_pass.h"
#include "vertex_pass.h"

namespace brainkit {
namespace {

template <typename T>
void sum_over_images(const Shape& s, const T* grad, int threads, T* out) {
    for_each((s.vertices + kPart - 1) / kPart, threads, [&](Index part) {
        const Index begin = part * kPart;
        const Index end = std::min(s.vertices, begin + kPart);
        std::fill(out + begin, out + end, T(0));
        for (Index image = 0; image < s.images; ++image) {
            for (Index v = begin; v < end; ++v) out[v] += grad[image * s.vertices + v];
        }
    });
}

}  // namespace

template <typename T>
void factor_readout_backward(const Shape& shape, const Inputs<T>& inputs, const T* grad, int threads,
                             const Gradients<T>& out) {
    const Plan plan = make_plan(shape, inputs.locations, threads);
    Sorted<T> sorted = make_sorted(shape, plan, grad, threads);
    sum_over_images(shape, grad, threads, out.bias);
    VertexPass<T>(shape, inputs, plan, out, sorted).run(threads);
    TokenPass<T>(shape, inputs, plan, out, sorted, threads).run(threads);
}

template void factor_readout_backward(const Shape&, const Inputs<float>&, const float*, int, const Gradients<float>&);
template void factor_readout_backward(const Shape&, const Inputs<double>&, const double*, int,
                                      const Gradients<double>&);

}  // namespace brainkit
