# Everything rubato does not write itself. All but libtorch is packaged in Debian 12 and 13; `./dev build` installs what is missing.
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Protobuf REQUIRED)
find_library(RUBATO_PROTOBUF_LITE NAMES libprotobuf-lite.a REQUIRED)
# After protobuf: a wheel's configuration defines a protobuf of its own where there is none yet.
set(RUBATO_TORCH "" CACHE PATH "Folder of a libtorch (a wheel's torch, or an unpacked libtorch); empty: the system's")
include(cmake/torch.cmake)
find_package(nlohmann_json REQUIRED)
find_package(fmt REQUIRED)
find_package(CLI11 REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(muparser REQUIRED)
find_package(PkgConfig REQUIRED)
include(cmake/packages.cmake)
rubato_package(XXHASH libxxhash REQUIRED)
rubato_package(ZMQ libzmq REQUIRED)
rubato_package(MICROHTTPD libmicrohttpd REQUIRED)
if(RUBATO_JEMALLOC)
  rubato_package(JEMALLOC jemalloc)
endif()
if(RUBATO_SIMULATOR)
  rubato_package(SIMGRID simgrid)
endif()

add_library(rubato_torch INTERFACE)
target_link_libraries(rubato_torch INTERFACE ${TORCH_LIBRARIES})

# Libraries without a torch header: cheap to compile against.
add_library(rubato_vendor_light INTERFACE)
target_link_libraries(rubato_vendor_light INTERFACE Threads::Threads nlohmann_json::nlohmann_json fmt::fmt)

# c10d's Gloo backend is compiled into libtorch; its header needs Gloo's own.
add_library(rubato_gloo INTERFACE)
target_link_libraries(rubato_gloo INTERFACE rubato_torch gloo)
target_compile_definitions(rubato_gloo INTERFACE USE_C10D_GLOO)
