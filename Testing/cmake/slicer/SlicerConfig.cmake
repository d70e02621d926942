# A stand-in for Slicer's build tree: what an extension of scripted modules uses, with the same rules about
# what is installed where. Slicer copies the listed files to its build tree and installs from there, so that a
# file with ".." in its name ends up outside of it and is dropped; here it is dropped right away.
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/Use.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/Checks.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake)
set(Slicer_FOUND TRUE)
