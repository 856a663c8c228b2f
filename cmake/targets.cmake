# One static library per folder of src/. What includes torch is compiled with one precompiled libtorch header, and most files share a
# translation unit with their neighbours: of the ten seconds that a file of its own costs, nine are libtorch's headers.
# -fPIC everywhere, so that executables and libraries can share the same precompiled header.
option(RUBATO_UNITY "Compile the files of a folder together (off: each alone, for tools that read compile_commands.json)" ON)

# The command finds a libtorch that is not the system's where it was built, installed or not. CMake pads a run path that changes at
# installation with empty entries, which mean the folder that somebody happens to be in.
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
if(RUBATO_TORCH)
  set(CMAKE_INSTALL_RPATH ${RUBATO_TORCH}/lib)  # also where it lies in the source tree, in .venv
endif()
set(CMAKE_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

add_library(rubato_flags INTERFACE)
target_compile_options(rubato_flags INTERFACE -fPIC -Wall -Wextra -Wno-unknown-pragmas
  -Wno-missing-field-initializers  # designated initialisers leave the rest at its default on purpose
  -Wno-restrict)  # false alarms of g++ 12 in std::string
if(RUBATO_SANITIZER)
  target_compile_options(rubato_flags INTERFACE -fsanitize=${RUBATO_SANITIZER} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(rubato_flags INTERFACE -fsanitize=${RUBATO_SANITIZER})
endif()

# Files that share a translation unit: as many as keep a rebuild after one changed file short.
function(rubato_unity target files)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${RUBATO_UNITY} UNITY_BUILD_BATCH_SIZE ${files})
endfunction()

# Compiles `sources`, which include no torch header, without any of libtorch in sight, and adds their objects to `target`.
function(rubato_light_sources target)
  add_library(${target}_light OBJECT ${ARGN})
  target_include_directories(${target}_light PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(${target}_light PRIVATE rubato_vendor_light rubato_flags)
  rubato_unity(${target}_light 12)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_light>)
endfunction()

# rubato_library(FOLDER [TORCH] [FILES_PER_UNIT N] [LIGHT FILE...] [EXCLUDE FILE...] DEPENDS TARGET...): TORCH where files include torch headers, LIGHT those of
# them that do not.
function(rubato_library folder)
  cmake_parse_arguments(ARG "TORCH" "FILES_PER_UNIT" "DEPENDS;EXCLUDE;LIGHT" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${folder}/*.cpp)
  foreach(name IN LISTS ARG_EXCLUDE ARG_LIGHT)
    list(FILTER sources EXCLUDE REGEX "/${name}$")
  endforeach()
  add_library(rubato_${folder} STATIC ${sources})
  add_library(rubato::${folder} ALIAS rubato_${folder})
  target_include_directories(rubato_${folder}
    PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>
    PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(rubato_${folder} PUBLIC ${ARG_DEPENDS} PRIVATE $<BUILD_INTERFACE:rubato_flags>)
  if(ARG_TORCH)
    if(folder STREQUAL "model")  # the lowest that needs it; all others use its header again
      target_precompile_headers(rubato_model PRIVATE <torch/torch.h>)
    else()
      target_precompile_headers(rubato_${folder} REUSE_FROM rubato_model)
    endif()
  endif()
  if(NOT ARG_FILES_PER_UNIT)
    set(ARG_FILES_PER_UNIT 12)
  endif()
  rubato_unity(rubato_${folder} ${ARG_FILES_PER_UNIT})
  if(ARG_LIGHT)
    list(TRANSFORM ARG_LIGHT PREPEND ${PROJECT_SOURCE_DIR}/src/${folder}/)
    rubato_light_sources(rubato_${folder} ${ARG_LIGHT})
  endif()
endfunction()

function(rubato_executable target)
  add_executable(${target} ${ARGN})
  target_link_libraries(${target} PRIVATE rubato_all rubato_flags)
  target_precompile_headers(${target} REUSE_FROM rubato_model)
endfunction()

# An executable of rooms that do not know libtorch; it is neither compiled against it nor linked with it.
function(rubato_light_executable target)
  add_executable(${target} ${ARGN})
  target_link_libraries(${target} PRIVATE rubato_flags)
endfunction()

# Messages of src/<folder>/<file>; included as "<file>.pb.h". Compiled apart: protobuf's headers do not mix with the precompiled one.
# libtorch may carry another protobuf, so ours stays inside: the archive, and nothing of it is visible to libraries that are loaded.
add_library(rubato_protobuf INTERFACE)
target_link_libraries(rubato_protobuf INTERFACE ${RUBATO_PROTOBUF_LITE} Threads::Threads)
target_include_directories(rubato_protobuf SYSTEM INTERFACE ${Protobuf_INCLUDE_DIRS})
target_link_options(rubato_protobuf INTERFACE "LINKER:--exclude-libs,libprotobuf-lite.a")
function(rubato_protobuf folder file)
  add_library(rubato_${folder}_messages STATIC ${PROJECT_SOURCE_DIR}/src/${folder}/${file})
  target_link_libraries(rubato_${folder}_messages PUBLIC rubato_protobuf PRIVATE $<BUILD_INTERFACE:rubato_flags>)
  target_include_directories(rubato_${folder}_messages
    PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_BINARY_DIR}> $<BUILD_INTERFACE:${CMAKE_CURRENT_BINARY_DIR}/src/${folder}>)
  protobuf_generate(TARGET rubato_${folder}_messages IMPORT_DIRS ${PROJECT_SOURCE_DIR}/src/${folder}
    PROTOC_OUT_DIR ${CMAKE_CURRENT_BINARY_DIR})
  target_link_libraries(rubato_${folder} PRIVATE rubato_${folder}_messages)
endfunction()
