"""The parts of ci/kernels: other kernels in virtual machines. Standard library only; needs no KVM."""
