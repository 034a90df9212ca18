// Command paifang-dns is the cluster DNS of a test node: CoreDNS with the two of its plug-ins that answer for Services, and nothing that asks
// servers outside. It is configured by a Corefile as CoreDNS is (`paifang-dns -conf FILE`).
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func main() {
	// Their order in the chain.
	dnsserver.Directives = []string{"errors", "kubernetes"}
	coremain.Run()
}
