# One static library per folder of src/; one precompiled libtorch header shared by all that include torch.
# -fPIC everywhere, so that executables and libraries can share the same precompiled header.
add_library(rubato_flags INTERFACE)
target_compile_options(rubato_flags INTERFACE -fPIC -Wall -Wextra -Wno-unknown-pragmas
  -Wno-missing-field-initializers  # designated initialisers leave the rest at its default on purpose
  -Wno-restrict)  # false alarms of g++ 12 in std::string
if(RUBATO_SANITIZER)
  target_compile_options(rubato_flags INTERFACE -fsanitize=${RUBATO_SANITIZER} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(rubato_flags INTERFACE -fsanitize=${RUBATO_SANITIZER})
endif()

add_library(rubato_pch STATIC ${PROJECT_SOURCE_DIR}/cmake/pch.cpp)
target_link_libraries(rubato_pch PRIVATE rubato_flags rubato_torch)
target_precompile_headers(rubato_pch PRIVATE <torch/torch.h>)

set(RUBATO_TORCH_FREE core context runtimes recording compare transport launch)

function(rubato_library folder)
  cmake_parse_arguments(ARG "" "" "DEPENDS;EXCLUDE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${folder}/*.cpp)
  foreach(name IN LISTS ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "/${name}$")
  endforeach()
  add_library(rubato_${folder} STATIC ${sources})
  add_library(rubato::${folder} ALIAS rubato_${folder})
  target_include_directories(rubato_${folder}
    PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>
    PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(rubato_${folder} PUBLIC ${ARG_DEPENDS} PRIVATE $<BUILD_INTERFACE:rubato_flags>)
  rubato_use_pch(rubato_${folder} ${folder})
endfunction()

# Files of `target` that include no torch header: they compile faster without the precompiled one.
function(rubato_torch_free target)
  set_source_files_properties(${ARGN} TARGET_DIRECTORY ${target} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endfunction()

function(rubato_use_pch target folder)
  if(NOT folder IN_LIST RUBATO_TORCH_FREE)
    target_precompile_headers(${target} REUSE_FROM rubato_pch)
  endif()
endfunction()

function(rubato_executable target)
  add_executable(${target} ${ARGN})
  target_link_libraries(${target} PRIVATE rubato_all rubato_flags)
  rubato_use_pch(${target} "")
endfunction()

# Messages of src/<folder>/<file>; included as "<file>.pb.h". Compiled apart: protobuf's headers do not mix with the precompiled one.
function(rubato_protobuf folder file)
  add_library(rubato_${folder}_messages STATIC ${PROJECT_SOURCE_DIR}/src/${folder}/${file})
  target_link_libraries(rubato_${folder}_messages PUBLIC protobuf::libprotobuf-lite PRIVATE $<BUILD_INTERFACE:rubato_flags>)
  target_include_directories(rubato_${folder}_messages
    PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_BINARY_DIR}> $<BUILD_INTERFACE:${CMAKE_CURRENT_BINARY_DIR}/src/${folder}>)
  protobuf_generate(TARGET rubato_${folder}_messages IMPORT_DIRS ${PROJECT_SOURCE_DIR}/src/${folder}
    PROTOC_OUT_DIR ${CMAKE_CURRENT_BINARY_DIR})
  target_link_libraries(rubato_${folder} PRIVATE rubato_${folder}_messages)
endfunction()
