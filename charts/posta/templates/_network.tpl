{{/* A way to Postgres or NATS: this release's own pods, or the networks and ports where it is found elsewhere. */}}
{{- define "posta.reach" -}}
{{- if .own -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "posta.selector" (dict "root" .root "component" .component) | nindent 10 }}
  ports:
    - {port: {{ eq .component "postgres" | ternary 5432 4222 }}, protocol: TCP}
{{- else -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .networks }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
{{- end -}}
{{- end }}

{{/* Everything outside: no address of a private network. */}}
{{- define "posta.world" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16]
- ipBlock:
    cidr: "::/0"
    except: ["fc00::/7", "fe80::/10"]
{{- end }}
