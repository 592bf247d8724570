{{/* What a service scales by, as Prometheus is asked for it: the sum over its pods, or the one figure that is shared. */}}
{{- define "posta.scaleQuery" -}}
{{- $select := printf "namespace=%q" .root.Release.Namespace -}}
{{- if .row.shared -}}
max({{ .row.meter }}{ {{- trimPrefix "{" .row.by | trimSuffix "}" }},{{ $select -}} })
{{- else if .row.rate -}}
sum(rate({{ .row.meter }}{ {{- $select -}} }[2m]))
{{- else -}}
sum({{ .row.meter }}{ {{- $select -}} })
{{- end -}}
{{- end }}
