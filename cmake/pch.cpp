// Carries the precompiled libtorch header; see targets.cmake.
