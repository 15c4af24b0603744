#include "sorted.h"
#include "token_pass.h"
#include "vertex_pass.h"

namespace brainkit {

template <typename T>
void factor_readout_backward(const Shape& shape, const Inputs<T>& inputs, const T* grad, int threads,
                             const Gradients<T>& out) {
    const Plan plan = make_plan(shape, inputs.locations, kTile, threads);
    Sorted<T> sorted = make_sorted(shape, plan, grad, threads);
    sum_over_images(shape, grad, threads, out.bias);
    VertexPass<T>(shape, inputs, plan, out, sorted).run(threads);
    TokenPass<T>(shape, inputs, plan, out, sorted, threads).run(threads);
    clear_gradients(shape, plan, out);
}

template void factor_readout_backward(const Shape&, const Inputs<float>&, const float*, int, const Gradients<float>&);
template void factor_readout_backward(const Shape&, const Inputs<double>&, const double*, int,
                                      const Gradients<double>&);

}  // namespace brainkit
