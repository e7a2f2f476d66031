// SPDX-License-Identifier: Apache-2.0

package stack

import "syscall"

// childAttributes makes a server end with the process that started it, even if that process is
// killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
