# What Slicer's extension packaging asks for.
foreach(_name HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if(NOT EXTENSION_${_name})
    message(FATAL_ERROR "EXTENSION_${_name} is not set")
  endif()
endforeach()
message(STATUS "EXTENSION_DEPENDS=${EXTENSION_DEPENDS}")
