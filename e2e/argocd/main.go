// Command paifang-argocd is Argo CD's application-controller and repo-server in one file, each as released. The first argument says
// which. Their API server, with its user interface and logins, is left out: Applications are objects of the cluster.
package main

import (
	"fmt"
	"os"

	controller "github.com/argoproj/argo-cd/v3/cmd/argocd-application-controller/commands"
	repository "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
	"github.com/argoproj/argo-cd/v3/util/log"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
)

const usage = "usage: paifang-argocd application-controller|repo-server [flags]"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	klog.SetLogger(log.NewLogrusLogger(log.NewWithCurrentConfig()))
	// Each program reads os.Args as if it had been started under its own name.
	os.Args = os.Args[1:]
	switch os.Args[0] {
	case "application-controller":
		run(controller.NewCommand())
	case "repo-server":
		run(repository.NewCommand())
	default:
		fmt.Fprintf(os.Stderr, "unknown program %q\n%s\n", os.Args[0], usage)
		os.Exit(2)
	}
}

func run(command *cobra.Command) {
	if err := command.Execute(); err != nil {
		os.Exit(1)
	}
}
