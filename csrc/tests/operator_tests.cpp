// The operator and the selector networks without Python, for sanitizers: results against the definition, gradients
// against differences of the forward pass, the same bits for every number of threads, calls from several threads at
// once, and after a fork.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "factor_readout.h"
#include "recycled.h"
#include "selectors.h"
#include "token_readout.h"

// ThreadSanitizer cannot start threads in a forked child.
#if !defined(_WIN32) && !defined(__SANITIZE_THREAD__)
#define BRAINKIT_TEST_FORK
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using brainkit::Index;
using brainkit::Shape;

int failures = 0;

void expect(bool holds, const char* what, const Shape& s) {
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "failed: %s at B %d, L %d, D %d, H %d, W %d, V %d\n", what, static_cast<int>(s.images),
                 static_cast<int>(s.layers), static_cast<int>(s.channels), static_cast<int>(s.height),
                 static_cast<int>(s.width), static_cast<int>(s.vertices));
}

// The seven inputs, or their gradients, in the operator's order. Exactly sized, so that sanitizers see reads beyond the
// end.
template <typename T>
using Arrays = std::vector<std::vector<T>>;

std::vector<Index> sizes(const Shape& s) {
    const Index tokens = s.images * s.layers * s.channels;
    return {tokens * s.height * s.width, tokens,    s.vertices * 2, s.vertices * s.layers, s.vertices,
            s.vertices * s.channels,     s.vertices};
}

template <typename T>
Arrays<T> draw(const Shape& s, unsigned seed) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    Arrays<T> arrays;
    for (const Index n : sizes(s)) {
        arrays.emplace_back(static_cast<std::size_t>(n));
        // Locations (the third) reach beyond the border.
        for (T& x : arrays.back()) x = static_cast<T>(uniform(generator) * (arrays.size() == 3 ? 1.3 : 1.0));
    }
    return arrays;
}

template <typename T>
brainkit::Inputs<T> inputs_of(const Arrays<T>& a) {
    return {a[0].data(), a[1].data(), a[2].data(), a[3].data(), a[4].data(), a[5].data(), a[6].data()};
}

template <typename T>
brainkit::Gradients<T> gradients_of(Arrays<T>& a) {
    return {a[0].data(), a[1].data(), a[2].data(), a[3].data(), a[4].data(), a[5].data(), a[6].data()};
}

template <typename T>
std::vector<T> forward(const Shape& s, const Arrays<T>& inputs, int threads) {
    std::vector<T> out(static_cast<std::size_t>(s.images * s.vertices));
    brainkit::factor_readout_forward(s, inputs_of(inputs), threads, out.data());
    return out;
}

template <typename T>
Arrays<T> backward(const Shape& s, const Arrays<T>& inputs, const std::vector<T>& grad, int threads) {
    Arrays<T> out;
    for (const Index n : sizes(s)) out.emplace_back(static_cast<std::size_t>(n));
    brainkit::factor_readout_backward(s, inputs_of(inputs), grad.data(), threads, gradients_of(out));
    return out;
}

double define(const Shape& s, const Arrays<double>& in, Index b, Index v) {
    const double x = ((in[2][2 * v] + 1) * static_cast<double>(s.width) - 1) / 2;
    const double y = ((in[2][2 * v + 1] + 1) * static_cast<double>(s.height) - 1) / 2;
    double sum = 0;
    for (Index l = 0; l < s.layers; ++l) {
        for (Index d = 0; d < s.channels; ++d) {
            const Index channel = (b * s.layers + l) * s.channels + d;
            double local = 0;
            for (Index row = 0; row < s.height; ++row) {
                for (Index column = 0; column < s.width; ++column) {
                    const double share = std::fmax(0, 1 - std::fabs(x - static_cast<double>(column))) *
                                         std::fmax(0, 1 - std::fabs(y - static_cast<double>(row)));
                    local += share * in[0][channel * s.height * s.width + row * s.width + column];
                }
            }
            const double mixed = (1 - in[4][v]) * local + in[4][v] * in[1][channel];
            sum += in[3][v * s.layers + l] * mixed * in[5][v * s.channels + d];
        }
    }
    return in[6][v] + sum / static_cast<double>(s.channels);
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

void check_values(const Shape& s) {
    const Arrays<double> inputs = draw<double>(s, 1);
    const std::vector<double> out = forward(s, inputs, 2);
    for (Index b = 0; b < s.images; ++b) {
        for (Index v = 0; v < s.vertices; ++v) {
            expect(std::fabs(out[b * s.vertices + v] - define(s, inputs, b, v)) < 1e-12, "the definition", s);
        }
    }
    const std::vector<double> grad = draw<double>(Shape{1, 1, s.images, 1, 1, s.vertices}, 2)[5];
    const Arrays<double> grads = backward(s, inputs, grad, 2);
    const Arrays<double> direction = draw<double>(s, 3);
    constexpr double kStep = 1e-6;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        Arrays<double> ahead = inputs, behind = inputs;
        for (std::size_t j = 0; j < inputs[i].size(); ++j) {
            ahead[i][j] += kStep * direction[i][j];
            behind[i][j] -= kStep * direction[i][j];
        }
        const double difference = (dot(forward(s, ahead, 2), grad) - dot(forward(s, behind, 2), grad)) / (2 * kStep);
        const double found = dot(grads[i], direction[i]);
        expect(std::fabs(found - difference) < 1e-6 * (1 + std::fabs(found)), "a gradient", s);
    }
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <typename T>
void check_threads(const Shape& s) {
    Arrays<T> inputs = draw<T>(s, 4);
    inputs[2][0] = std::nan("");  // one vertex without location
    const std::vector<T> grad = draw<T>(Shape{1, 1, s.images, 1, 1, s.vertices}, 5)[5];
    const std::vector<T> out = forward(s, inputs, 1);
    const Arrays<T> grads = backward(s, inputs, grad, 1);
    for (const int threads : {2, 3, 8}) {
        expect(same_bits(forward(s, inputs, threads), out), "bits of the result", s);
        const Arrays<T> again = backward(s, inputs, grad, threads);
        for (std::size_t i = 0; i < grads.size(); ++i) expect(same_bits(again[i], grads[i]), "bits of a gradient", s);
    }
}

double rms(const std::vector<float>& a) {
    double sum = 0;
    for (const float x : a) sum += static_cast<double>(x) * x;
    return std::sqrt(sum / static_cast<double>(a.size()));
}

bool near(const std::vector<float>& found, const std::vector<float>& expected, double bound) {
    std::vector<float> difference(found);
    for (std::size_t i = 0; i < found.size(); ++i) difference[i] -= expected[i];
    return rms(difference) <= bound * rms(expected);
}

// Both in bf16x3, the same for every number of threads.
void check_bf16x3(const Shape& s) {
    Arrays<float> inputs = draw<float>(s, 8);
    inputs[6].assign(inputs[6].size(), 0.0f);
    const std::vector<float> grad = draw<float>(Shape{1, 1, s.images, 1, 1, s.vertices}, 9)[5];
    const std::vector<float> expected = forward(s, inputs, 2);
    const Arrays<float> expected_grads = backward(s, inputs, grad, 2);
    std::vector<float> first(expected.size());
    Arrays<float> first_grads(expected_grads);
    for (const int threads : {1, 3}) {
        std::vector<float> out(expected.size());
        Arrays<float> grads(expected_grads);
        for (auto& array : grads) array.assign(array.size(), std::nanf(""));
        brainkit::factor_readout_forward_bf16x3(s, inputs_of(inputs), threads, out.data());
        brainkit::factor_readout_backward_bf16x3(s, inputs_of(inputs), grad.data(), threads, gradients_of(grads));
        if (threads == 1) {
            first = out;
            first_grads = grads;
        }
        expect(near(out, expected, 1e-5), "the result in bf16x3", s);
        expect(same_bits(out, first), "bits of the result in bf16x3", s);
        for (std::size_t i = 0; i < grads.size(); ++i) {
            expect(near(grads[i], expected_grads[i], 5e-5), "a gradient in bf16x3", s);
            expect(same_bits(grads[i], first_grads[i]), "bits of a gradient in bf16x3", s);
        }
    }
}

void check_callers() {
    const Shape s{2, 3, 20, 4, 4, 300};
    const Arrays<float> inputs = draw<float>(s, 6);
    const std::vector<float> expected = forward(s, inputs, 1);
    std::vector<std::vector<float>> found(6);
    std::vector<std::thread> callers;
    for (auto& out : found) callers.emplace_back([&] { out = forward(s, inputs, 3); });
    for (auto& caller : callers) caller.join();
    for (const auto& out : found) expect(same_bits(out, expected), "calls from several threads", s);
}

// --- the selector networks

using brainkit::NetworkShape;

// Features, then the seven weights, in the order of NetworkInputs.
std::vector<Index> sizes(const NetworkShape& s) {
    return {s.vertices * s.features,
            3 * s.hidden * s.features,
            3 * s.hidden,
            3 * s.hidden * s.hidden,
            3 * s.hidden,
            2 * s.hidden,
            s.layers * s.hidden,
            s.hidden};
}

std::vector<Index> result_sizes(const NetworkShape& s) { return {2 * s.vertices, s.layers * s.vertices, s.vertices}; }

template <typename T>
Arrays<T> draw(const std::vector<Index>& lengths, unsigned seed) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    Arrays<T> arrays;
    for (const Index n : lengths) {
        arrays.emplace_back(static_cast<std::size_t>(n));
        for (T& x : arrays.back()) x = static_cast<T>(uniform(generator));
    }
    return arrays;
}

template <typename T>
brainkit::NetworkInputs<T> network_inputs(const Arrays<T>& a) {
    return {a[0].data(), a[1].data(), a[2].data(), a[3].data(), a[4].data(), {a[5].data(), a[6].data(), a[7].data()}};
}

// The three results, then what was kept, in memory aligned to 64 bytes.
template <typename T>
struct Chosen {
    Arrays<T> results;
    std::vector<T> room;
    T* kept = nullptr;
};

template <typename T>
Chosen<T> choose(const NetworkShape& s, const Arrays<T>& inputs, int threads, bool keep) {
    Chosen<T> chosen;
    for (const Index n : result_sizes(s)) chosen.results.emplace_back(static_cast<std::size_t>(n));
    if (keep) {
        std::size_t size = static_cast<std::size_t>(6 * s.vertices * brainkit::kept_width(s.hidden)) * sizeof(T);
        std::size_t room = size + 64;
        chosen.room.resize(room / sizeof(T));
        void* start = chosen.room.data();
        chosen.kept = static_cast<T*>(std::align(64, size, start, room));
    }
    T* const out[] = {chosen.results[0].data(), chosen.results[1].data(), chosen.results[2].data()};
    brainkit::selector_networks_forward(s, network_inputs(inputs), threads, out, chosen.kept);
    return chosen;
}

template <typename T>
Arrays<T> choose_backward(const NetworkShape& s, const Arrays<T>& inputs, const Chosen<T>& chosen,
                          const Arrays<T>& grads, int threads) {
    Arrays<T> to;
    for (const Index n : sizes(s)) to.emplace_back(static_cast<std::size_t>(n));
    const T* const out[] = {chosen.results[0].data(), chosen.results[1].data(), chosen.results[2].data()};
    const T* const grad[] = {grads[0].data(), grads[1].data(), grads[2].data()};
    const brainkit::NetworkGradients<T> gradients{
        to[1].data(), to[2].data(), to[3].data(), to[4].data(), {to[5].data(), to[6].data(), to[7].data()}};
    brainkit::selector_networks_backward(s, network_inputs(inputs), out, grad, chosen.kept, threads, gradients);
    return to;
}

std::vector<double> layer(const std::vector<double>& values, const double* weight, const double* bias, Index outputs) {
    std::vector<double> sums(static_cast<std::size_t>(outputs));
    for (Index o = 0; o < outputs; ++o) {
        sums[o] = bias == nullptr ? 0 : bias[o];
        for (std::size_t i = 0; i < values.size(); ++i) sums[o] += weight[o * values.size() + i] * values[i];
    }
    return sums;
}

std::vector<double> gelu(std::vector<double> values) {
    for (double& x : values) x *= 0.5 * std::erfc(-x * std::sqrt(0.5));
    return values;
}

void expect(bool holds, const char* what, const NetworkShape& s) {
    expect(holds, what, Shape{0, s.layers, s.hidden, 0, s.features, s.vertices});
}

void check_network_values(const NetworkShape& s) {
    const Arrays<double> in = draw<double>(sizes(s), 8);
    const Chosen<double> found = choose(s, in, 2, true);
    const Index h = s.hidden;
    for (Index v = 0; v < s.vertices; ++v) {
        for (Index n = 0; n < 3; ++n) {
            const std::vector<double> features(in[0].begin() + v * s.features, in[0].begin() + (v + 1) * s.features);
            const auto first = gelu(layer(features, &in[1][n * h * s.features], &in[2][n * h], h));
            const auto second = gelu(layer(first, &in[3][n * h * h], &in[4][n * h], h));
            std::vector<double> last = layer(second, in[5 + n].data(), nullptr, s.outputs(n));
            double total = 0;
            for (const double x : last) total += std::exp(x);
            for (Index o = 0; o < s.outputs(n); ++o) {
                const double x = last[o];
                const double expected = n == 0 ? std::tanh(x) : n == 1 ? std::exp(x) / total : 1 / (1 + std::exp(-x));
                expect(std::fabs(found.results[n][v * s.outputs(n) + o] - expected) < 1e-12, "the networks", s);
            }
        }
    }
    const Arrays<double> grads = draw<double>(result_sizes(s), 9);
    const Arrays<double> back = choose_backward(s, in, found, grads, 2);
    const Arrays<double> direction = draw<double>(sizes(s), 10);
    constexpr double kStep = 1e-6;
    for (std::size_t i = 1; i < in.size(); ++i) {
        double difference = 0;
        for (const double step : {kStep, -kStep}) {
            Arrays<double> moved = in;
            for (std::size_t j = 0; j < in[i].size(); ++j) moved[i][j] += step * direction[i][j];
            const Chosen<double> there = choose(s, moved, 2, false);
            for (std::size_t n = 0; n < 3; ++n) difference += dot(there.results[n], grads[n]) / (2 * step);
        }
        const double slope = dot(back[i], direction[i]);
        expect(std::fabs(slope - difference) < 1e-6 * (1 + std::fabs(slope)), "a gradient of the networks", s);
    }
}

template <typename T>
void check_network_bits(const NetworkShape& s) {
    const Arrays<T> inputs = draw<T>(sizes(s), 11);
    const Arrays<T> grads = draw<T>(result_sizes(s), 12);
    const Chosen<T> alone = choose(s, inputs, 1, true);
    const Arrays<T> back = choose_backward(s, inputs, alone, grads, 1);
    for (const int threads : {2, 3, 8}) {
        const Chosen<T> again = choose(s, inputs, threads, threads != 3);
        for (std::size_t n = 0; n < 3; ++n) {
            expect(same_bits(again.results[n], alone.results[n]), "bits of the networks", s);
        }
        const Arrays<T> found = choose_backward(s, inputs, again, grads, threads);
        for (std::size_t i = 1; i < found.size(); ++i) {
            expect(same_bits(found[i], back[i]), "bits of the networks' gradients", s);
        }
    }
}

// Groups of 0, 1, 2 ... rows and the rest, whose taps are drawn.
template <typename T>
void check_token_readout(const Shape& s) {
    constexpr Index kTaps = brainkit::kTaps;
    const Index cells = s.height * s.width + 1;
    const Arrays<T> drawn = draw<T>(Shape{s.images, s.layers, s.channels, 1, cells, s.vertices}, 21);
    const std::vector<T>&tokens = drawn[0], &weight = drawn[5], &bias = drawn[6];
    const std::vector<T> coefficients = draw<T>(Shape{1, kTaps * s.layers, s.vertices, 1, 1, 1}, 22)[0];
    std::vector<Index> starts{0};
    for (Index rows = 0; starts.back() < s.vertices; rows = rows < 3 ? rows + 1 : s.vertices) {
        starts.push_back(std::min(s.vertices, starts.back() + rows));
    }
    const Index groups = static_cast<Index>(starts.size()) - 1;
    std::mt19937 generator(23);
    std::vector<Index> taps(static_cast<std::size_t>(groups * kTaps));
    for (Index& cell : taps) cell = static_cast<Index>(generator() % static_cast<unsigned>(cells));
    const brainkit::TokenInputs<T> inputs{tokens.data(), weight.data(), coefficients.data(),
                                          bias.data(),   taps.data(),   starts.data()};
    const brainkit::TokenShape shape{s.images, s.layers, s.channels, cells, s.vertices, groups};
    const auto run = [&](int threads) {
        std::vector<T> out(static_cast<std::size_t>(s.images * s.vertices), T(1e30));
        brainkit::token_readout(shape, inputs, threads, out.data());
        return out;
    };
    const std::vector<T> found = run(1);
    for (const int threads : {2, 3, 8}) expect(same_bits(run(threads), found), "bits of the token readout", s);
    for (Index b = 0; b < s.images; ++b) {
        for (Index g = 0; g < groups; ++g) {
            for (Index i = starts[g]; i < starts[g + 1]; ++i) {
                double sum = bias[i], size = std::fabs(sum);
                for (Index k = 0; k < kTaps; ++k) {
                    for (Index l = 0; l < s.layers; ++l) {
                        for (Index d = 0; d < s.channels; ++d) {
                            const Index token = ((b * s.layers + l) * s.channels + d) * cells + taps[g * kTaps + k];
                            const double term = static_cast<double>(coefficients[(i * kTaps + k) * s.layers + l]) *
                                                weight[i * s.channels + d] * tokens[token];
                            sum += term;
                            size += std::fabs(term);
                        }
                    }
                }
                const double bound = (sizeof(T) == 8 ? 1e-13 : 1e-5) * (1 + size);
                expect(std::fabs(found[b * s.vertices + i] - sum) < bound, "the token readout", s);
            }
        }
    }
}

void check_recycled() {
    brainkit::Recycled memory;
    std::vector<std::thread> users;
    for (int user = 0; user < 4; ++user) {
        users.emplace_back([&memory, user] {
            for (std::size_t size = 100; size < 5000; size += 100) {
                const brainkit::Recycled::Block block = memory.take(size);
                std::memset(block.data, user, size);
                const auto* bytes = static_cast<const unsigned char*>(block.data);
                const bool own = std::all_of(bytes, bytes + size, [user](unsigned char b) { return b == user; });
                expect(own && block.size >= size, "memory used again", Shape{});
                memory.give_back(block);
            }
        });
    }
    for (auto& user : users) user.join();
}

#if defined(BRAINKIT_TEST_FORK)
void check_fork() {
    const Shape s{2, 3, 20, 4, 4, 300};
    const Arrays<float> inputs = draw<float>(s, 7);
    const std::vector<float> expected = forward(s, inputs, 3);
    const pid_t child = fork();
    if (child == 0) _exit(same_bits(forward(s, inputs, 3), expected) ? 0 : 1);
    int status = 1;
    waitpid(child, &status, 0);
    expect(status == 0, "a call after a fork", s);
}
#endif

}  // namespace

int main() {
    try {
        std::printf("instruction set: %s\n", brainkit::instruction_set());
    } catch (const std::runtime_error& error) {
        std::printf("skipped: %s\n", error.what());
        return 0;
    }
    const Shape shapes[] = {{1, 1, 1, 1, 1, 1},   {2, 3, 5, 4, 7, 61},   {3, 12, 33, 2, 2, 150}, {1, 5, 130, 3, 3, 7},
                            {9, 2, 64, 1, 9, 49}, {2, 40, 16, 5, 5, 20}, {2, 7, 24, 8, 8, 500}};
    // This one is packed, and its gradients are summed, in bands.
    const Shape large{3, 20, 128, 24, 20, 300};
    for (const Shape& s : shapes) {
        check_values(s);
        check_threads<float>(s);
        check_threads<double>(s);
        check_token_readout<float>(s);
        check_token_readout<double>(s);
        // The gradient of a single vertex may be tiny, so that its relative error is large.
        if (s.vertices > 1 && brainkit::why_no_bf16x3() == nullptr) check_bf16x3(s);
    }
    if (brainkit::why_no_bf16x3() != nullptr) std::printf("bf16x3 is left out: %s\n", brainkit::why_no_bf16x3());
    check_threads<float>(large);
    const NetworkShape networks[] = {{1, 1, 1, 1},  {0, 2, 3, 2},     {7, 5, 8, 3},
                                     {63, 1, 8, 1}, {97, 12, 33, 40}, {1500, 7, 20, 12}};
    for (const NetworkShape& s : networks) {
        if (s.vertices < 1000) check_network_values(s);
        check_network_bits<float>(s);
        check_network_bits<double>(s);
    }
    check_recycled();
    check_callers();
#if defined(BRAINKIT_TEST_FORK)
    check_fork();
#endif
    if (failures == 0) std::printf("passed\n");
    return failures == 0 ? 0 : 1;
}
