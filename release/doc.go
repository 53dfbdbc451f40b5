// Curfew releases are built by this command: static binaries in archives, packages for Debian and RPM systems, an image
// in the layout of the OCI, a list of what each binary contains (SPDX), and checksums. The same source, version and
// toolchain give the same bytes, in whatever folder and at whatever time.
package main
