// Keeps the addon loadable where Node is: glibc 2.28 and the libstdc++ of its time. Two symbols that GCC 12's headers
// ask newer libraries for are defined here instead; both are hidden, so nobody else sees them.
#if defined(__linux__)
#include <new>

// glibc 2.32: "only one thread so far", which lets shared_ptr skip atomics. Never true here.
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;

// libstdc++ 3.4.29.
namespace std {
__attribute__((visibility("hidden"), noreturn)) void __throw_bad_array_new_length();
void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std
#endif
