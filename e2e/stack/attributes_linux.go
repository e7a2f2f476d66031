// SPDX-License-Identifier: Apache-2.0

package stack

import "syscall"

// childAttributes make a server end with the process that started it, even if that one is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
