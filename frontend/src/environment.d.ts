interface Window {
  $RefreshReg$: () => void;
  $RefreshSig$: () => <T>(type: T) => T;
}
