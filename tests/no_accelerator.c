/* Preloaded: no device type is an accelerator to autograd, which then asks CUDA for no streams and no contexts. The names
   are at::accelerator's getAccelerator(bool), an empty std::optional, and isAccelerator(DeviceType). */
long _ZN2at11accelerator14getAcceleratorEb(int checked) { return 0; }
int _ZN2at11accelerator13isAcceleratorEN3c1010DeviceTypeE(signed char type) { return 0; }
