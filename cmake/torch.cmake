# Which libtorch, and what of it the compiler sees: by RUBATO_TORCH, the folder of a wheel's torch or of an unpacked libtorch; empty: the
# system's. Gives TORCH_LIBRARIES and RUBATO_TORCH_VERSION. Installed too, for projects that use rubato.

if(TARGET torch AND RUBATO_TORCH)
  get_target_property(there torch IMPORTED_LOCATION_RELEASE)
  if(there)
    cmake_path(IS_PREFIX RUBATO_TORCH "${there}" NORMALIZE same)
    if(NOT same)
      message(FATAL_ERROR "rubato was built with the libtorch in ${RUBATO_TORCH}, but this project has found ${there} before: find rubato first, "
                          "or give -DRUBATO_TORCH= the folder of a libtorch of the same version")
    endif()
  endif()
endif()

# A wheel's configuration looks for a library that it does not ship, and warns.
set(kineto_LIBRARY torch_cpu)
# What an earlier run has found may be of another libtorch.
unset(Torch_DIR CACHE)
unset(Caffe2_DIR CACHE)
if(RUBATO_TORCH)
  # By its folder alone: with CMAKE_PREFIX_PATH the protobuf headers that a wheel carries would be found as well. What its
  # configuration looks for in turn is named too, or parts of the system's libtorch would be taken.
  set(Torch_DIR ${RUBATO_TORCH}/share/cmake/Torch)
  set(Caffe2_DIR ${RUBATO_TORCH}/share/cmake/Caffe2)
  set(TORCH_LIBRARY ${RUBATO_TORCH}/lib/libtorch.so)
  set(c10_LIBRARY ${RUBATO_TORCH}/lib/libc10.so)
endif()
find_package(Torch REQUIRED)
set(RUBATO_TORCH_VERSION ${Torch_VERSION})
if(RUBATO_TORCH_VERSION VERSION_LESS 1.13)
  message(FATAL_ERROR "libtorch ${RUBATO_TORCH_VERSION} is too old: rubato needs 1.13 or later")
endif()
if(NOT RUBATO_TORCH AND EXISTS "${TORCH_INSTALL_PREFIX}/include/google/protobuf")
  if(NOT TORCH_INSTALL_PREFIX STREQUAL "/usr")
    message(FATAL_ERROR "the libtorch in ${TORCH_INSTALL_PREFIX} brings headers of other libraries along: name it with "
                        "-DRUBATO_TORCH=${TORCH_INSTALL_PREFIX} instead of CMAKE_PREFIX_PATH or Torch_DIR")
  endif()
endif()

# Link directories of an MKL that is not there; they would end up in the run path.
if(TARGET caffe2::mkl)
  set_target_properties(caffe2::mkl PROPERTIES INTERFACE_LINK_DIRECTORIES "")
endif()

# A wheel's include folder also has the headers of fmt, protobuf and pybind11 that it was built with; they are not those of the libraries
# that we link. The compiler sees a folder with the others only.
if(RUBATO_TORCH)
  set(hidden fmt google pybind11)
  set(whole ${RUBATO_TORCH}/include)
  set(seen ${PROJECT_BINARY_DIR}/torch_include)
  file(REMOVE_RECURSE ${seen})  # it may be of another libtorch
  file(MAKE_DIRECTORY ${seen})
  file(GLOB entries RELATIVE ${whole} ${whole}/*)
  list(REMOVE_ITEM entries ${hidden})
  foreach(entry IN LISTS entries)
    file(CREATE_LINK ${whole}/${entry} ${seen}/${entry} SYMBOLIC)
  endforeach()
  set(folders ${seen} ${seen}/torch/csrc/api/include)
  foreach(target torch torch_library torch_cpu torch_cpu_library torch_cuda torch_cuda_library c10 c10_cuda)
    if(TARGET ${target})
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${folders}")
      # A wheel contains its protobuf and asks for another all the same.
      get_target_property(libraries ${target} INTERFACE_LINK_LIBRARIES)
      if(libraries)
        list(REMOVE_ITEM libraries protobuf::libprotobuf)
        set_target_properties(${target} PROPERTIES INTERFACE_LINK_LIBRARIES "${libraries}")
      endif()
    endif()
  endforeach()
  set(TORCH_INCLUDE_DIRS ${folders})
endif()
