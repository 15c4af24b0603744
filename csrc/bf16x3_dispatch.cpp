// Whether bf16x3 can run here, and with which kernels.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "bf16x3.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace brainkit {
namespace {

#if defined(__x86_64__) && defined(__linux__)
bool processor_has_amx() {
    unsigned a, b, c, d;
    constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
    // The kernels around the tiles use these.
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

// On Linux a process must request tiles, because they enlarge its saved state.
bool system_grants_amx() {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

const char* ask_hardware() {
    if (amx_kernels() == nullptr) return "brainkit's C++ extension was built by a compiler that has no AMX";
    if (!processor_has_amx()) return "this processor has no AMX (amx_tile and amx_bf16)";
    if (!system_grants_amx()) return "the system does not grant AMX to this process";
    return nullptr;
}
#else
const char* ask_hardware() { return "AMX is used on x86-64 Linux only"; }
#endif

bool is_emulated() {
    const char* variable = std::getenv("BRAINKIT_AMX");
    const std::string asked = variable == nullptr ? "" : variable;
    if (asked.empty()) return false;
    if (asked != "emulate") throw std::runtime_error("BRAINKIT_AMX must be emulate or unset, got '" + asked + "'");
    return true;
}

}  // namespace

const char* why_no_bf16x3() {
    static const char* const reason = is_emulated() ? nullptr : ask_hardware();
    return reason;
}

const Bf16x3Kernels& bf16x3_kernels() {
    if (why_no_bf16x3() != nullptr) throw std::runtime_error(std::string("bf16x3 cannot run: ") + why_no_bf16x3());
    static const Bf16x3Kernels& chosen = is_emulated() ? emulated_kernels() : *amx_kernels();
    return chosen;
}

}  // namespace brainkit
